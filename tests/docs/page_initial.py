"""Initial weights after docs/PROTOCOL.md, section "Initial weights": nothing of numpy or featherfed."""

import math
from collections.abc import Sequence

from tests.docs.page_arithmetic import f32
from tests.docs.page_random import PageGenerator, digest_of


def weights(draws: Sequence[int | Sequence[float]], shapes: Sequence[Sequence[int]], seed: int) -> list[float]:
    """Return version 0, all tensors one after the other."""
    drawn: list[float] = []
    for number, (draw, shape) in enumerate(zip(draws, shapes, strict=True)):
        low, high = (-1 / math.sqrt(draw), 1 / math.sqrt(draw)) if isinstance(draw, int) else map(float, draw)
        generator = PageGenerator.of(digest_of(seed, 0, -1, f"initial/{number}"))
        for _ in range(math.prod(shape)):
            drawn.append(f32(low if low == high else low + (high - low) * ((generator.word() >> 8) / 2**24)))
    return drawn
