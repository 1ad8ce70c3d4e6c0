"""What the layers' passes have in common: blocks of any size.

A call is compiled once for each set of types, and to numba a number that is written out is a type of its own: hence
`int64(0)` and the like among the arguments.
"""

from typing import Any

import numpy as np

from featherfed.compiling.emitter import LANES, compiled, get, put
from featherfed.learning.compiled.vectors import ROWS, WIDTH, tile

ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def tiles(
    rows: Any, width: Any, out: Any, out_at: Any, outs: Any, outs_at: Any, adds: Any, apart: Any, first: Any,
    first_at: Any, first_step: Any, relu: Any, left: Any, left_at: Any, lefts: Any, lefts_at: Any, outer: Any,
    outer_step: Any, inner: Any, inner_step: Any, right: Any, right_at: Any, right_outer: Any, right_inner: Any,
) -> None:  # fmt: skip
    """Have `tile` write all of so many rows of so many numbers; the first row moves along them by `first_step`."""
    groups = (rows + ROWS - 1) // ROWS
    column = 0
    while column < width:
        wide = width - column
        if wide >= WIDTH * LANES:
            wide = WIDTH * LANES
        elif wide > LANES:
            wide = LANES
        for group in range(groups):
            begin = rows * group // groups
            tile(
                rows * (group + 1) // groups - begin, wide, out, out_at + column, outs, outs_at + begin, adds,
                apart, first, first_at + column * first_step, relu, left, left_at, lefts, lefts_at + begin,
                outer, outer_step, inner, inner_step, right, right_at + column, right_outer, right_inner,
            )  # fmt: skip
        column += wide


@compiled
def whole(length: Any) -> Any:
    """Return a length rounded up to whole vectors."""
    return (length + LANES - 1) // LANES * LANES


@compiled
def mask(work: Any, gradient: Any, output: Any, length: Any) -> None:
    """Take the gradient through a ReLU of which `output` came."""
    for at in range(length):
        put(work, gradient + at, ZERO if get(work, output + at) <= 0 else get(work, gradient + at))
