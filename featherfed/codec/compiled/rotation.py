"""`rotate` and `hadamard`, compiled: a block stays in the first cache, and its butterflies in registers.

Sums of whole numbers are exact in any order, so these have the bits of numpy's products with matrices as long as the
roundings in between are the same: steps 1 to 5 of `hadamard`. Arrays are flat, and values below 2¹⁰⁰ in magnitude.
"""

from typing import Any

import numpy as np

from featherfed.codec.compiled.vectors import MOST_BITS, across, flip, from_bits, get_byte, magnitude, within
from featherfed.codec.hadamard import INPUT_BITS, LEAST_EXPONENT, ROOT_HALF, SUM_BITS
from featherfed.compiling.emitter import LANES, compiled, entered, get, put

FORWARD, BACK, BACK_WHOLE = 0, 1, 2
LANE_BITS = LANES.bit_length() - 1
ONE, ZERO = np.float32(1), np.float32(0)
_ROOT = np.float32(ROOT_HALF)
_ROUNDER = np.float32(1.5 * 2.0**23)
"""Added to a float32 below 2²² it rounds to a whole number, to nearest even."""
TOO_LARGE = (127 + 100) << 23
"""The bits of 2¹⁰⁰: of what is smaller nothing overflows on the way."""


@compiled
def power(exponent: Any) -> Any:
    """Return 2^exponent, −126 ≤ exponent ≤ 127."""
    return from_bits((exponent + 127) << 23)


@compiled
def root(bits: Any) -> Any:
    """Return 1/√2^bits, as `hadamard.root`."""
    return (_ROOT if bits & 1 else ONE) * power(-(bits >> 1))


@compiled
def _runs(x: Any, at: Any, bits: Any, first: Any, end: Any) -> None:
    """Multiply 2^bits numbers by the matrix over bits `first` to before `end` of their place, a vector's and more."""
    while first < end:
        passes = (end - first + MOST_BITS - 1) // MOST_BITS
        some = (end - first + passes - 1) // passes
        for begin in range(at, at + (1 << bits), 1 << (first + some)):
            across(some, x, begin, 1 << first)
        first += some


@compiled
def _products(x: Any, at: Any, bits: Any, begun_bits: Any, end: Any) -> None:
    """Multiply 2^bits numbers by the matrix over the lowest `end` bits of their place but those that were begun."""
    order = 1 << bits
    if order < LANES:
        width = 1 << begun_bits
        while width < 1 << end:
            for begin in range(at, at + order, 2 * width):
                for place in range(begin, begin + width):
                    left, right = get(x, place), get(x, place + width)
                    put(x, place, left + right)
                    put(x, place + width, left - right)
            width *= 2
        return
    if begun_bits < LANE_BITS:
        within(x, at, order // LANES, 1 << begun_bits)
        begun_bits = LANE_BITS
    _runs(x, at, bits, begun_bits, end)


@compiled
def products(x: Any, at: Any, bits: Any, begun_bits: Any) -> None:
    """Multiply 2^bits whole numbers by the matrix of ±1, of which that of order 2^begun_bits is done."""
    _products(x, at, bits, begun_bits, bits)


@compiled
def _rounded(x: Any, at: Any, count: Any, factor: Any, rounder: Any) -> None:
    """Round x · factor by an addition."""
    for place in range(at, at + count):
        put(x, place, (get(x, place) * factor + rounder) - rounder)


@compiled
def scaled(x: Any, at: Any, count: Any, factor: Any) -> None:
    """Multiply by a number; of −0 it makes +0 before."""
    for place in range(at, at + count):
        put(x, place, (get(x, place) + ZERO) * factor)


@compiled
def mixed(x: Any, at: Any, bits: Any) -> Any:
    """Do steps 1 to 4 of `hadamard` with a block of 2^bits numbers; return what step 5 multiplies with."""
    order = 1 << bits
    exponent = max((magnitude(x, at, order) >> 23) - 126, LEAST_EXPONENT)
    _rounded(x, at, order, power(INPUT_BITS - exponent), _ROUNDER)
    coarse = bits + INPUT_BITS - SUM_BITS
    if coarse <= 0:
        _products(x, at, bits, 0, bits)
    else:
        split = bits - bits // 3
        _products(x, at, bits, 0, split)
        # To multiples of 2^coarse, below 2²⁴.
        _rounded(x, at, order, ONE, _ROUNDER * power(coarse))
        _runs(x, at, bits, split, bits)
    return root(bits) * power(exponent - INPUT_BITS)


@compiled
def flipped(out: Any, out_at: Any, x: Any, at: Any, count: Any, factor: Any, drawn: Any, drawn_at: Any) -> None:
    """Write (x + 0) · factor times the signs from byte `drawn_at` on, for a block of `count` numbers."""
    if count >= LANES and count >= 8:
        flip(out, out_at, x, at, count, factor, drawn, drawn_at)
        return
    for place in range(count):
        value = (get(x, at + place) + ZERO) * factor
        is_minus = get_byte(drawn, drawn_at + (place >> 3)) >> (7 - (place & 7)) & 1
        put(out, out_at + place, -value if is_minus else value)


@compiled
def mix(x: Any, at: Any, bits: Any) -> None:
    """Multiply a block by the orthonormal matrix, as `hadamard.mix`."""
    factor = mixed(x, at, bits)
    scaled(x, at, 1 << bits, factor)


@compiled
def signs_of_overlap(main: Any) -> Any:
    """Return the byte from which on the signs of the block are that overlaps another (`rotate._overlap`)."""
    return (main + 31) // 32 * 4


@compiled
def overlap_back(values: Any, at: Any, bits: Any, drawn: Any, drawn_at: Any) -> None:
    """Undo the mixing of a block that overlaps another, whose signs begin at byte `drawn_at`."""
    factor = mixed(values, at, bits)
    flipped(values, at, values, at, 1 << bits, factor, drawn, drawn_at)


@compiled
def _forward(values: Any, source: Any, drawn: Any, first: Any, size: Any, bits: Any, main: Any) -> None:
    count, order = len(values), 1 << bits
    start = count
    if first + count > main:
        start = size - order - first
        flipped(values, start, source, start, order, ONE, drawn, signs_of_overlap(main))
        mix(values, start, bits)
    for begin in range(0, min(first + count, main) - first, order):
        for place in range(begin, min(begin + order, start)):
            put(values, place, get(source, place))
        flipped(values, begin, values, begin, order, ONE, drawn, (first + begin) >> 3)
        mix(values, begin, bits)


@compiled
def _back(
    values: Any, drawn: Any, first: Any, size: Any, bits: Any, main: Any, numbers: Any, is_whole: Any
) -> None:  # fmt: skip
    count, order = len(values), 1 << bits
    tiled = min(first + count, main) - first
    for begin in range(0, tiled, order):
        if is_whole:
            products(values, begin, bits, 0)
            factor = get(numbers, begin >> bits) * root(bits)
        else:
            factor = mixed(values, begin, bits)
        flipped(values, begin, values, begin, order, factor, drawn, (first + begin) >> 3)
    if tiled < count:
        if is_whole:
            scaled(values, tiled, count - tiled, get(numbers, len(numbers) - 1))
        overlap_back(values, count - order, bits, drawn, signs_of_overlap(main))


@entered
def rotate(
    way: Any, values: Any, source: Any, drawn: Any, first: Any, size: Any, bits: Any, main: Any, numbers: Any
) -> Any:  # fmt: skip
    """Rotate a span, which begins at `first`, of a tensor of `size` values; return whether it can be done here.

    Whole blocks of 2^bits values end at `main`. `FORWARD` writes H D x of `source`; `BACK` is D H y in place, and
    `BACK_WHOLE` that of whole numbers up to 2¹¹, times the `numbers` of their blocks of 8192.
    """
    if magnitude(source, 0, len(source)) >= TOO_LARGE or magnitude(numbers, 0, len(numbers)) >= TOO_LARGE:
        return False
    if way == FORWARD:
        _forward(values, source, drawn, first, size, bits, main)
    else:
        _back(values, drawn, first, size, bits, main, numbers, way == BACK_WHOLE)
    return True
