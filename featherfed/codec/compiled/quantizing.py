"""`eden` and `vertex`, compiled: a block of 8192 values at a time, each operation as numpy takes it.

Values are below 2¹⁰⁰ in magnitude, or nothing is done.
"""

from typing import Any

import numpy as np

from featherfed.codec.blocks import BLOCK
from featherfed.codec.compiled.rotation import ONE, TOO_LARGE, ZERO
from featherfed.codec.compiled.vectors import first_largest, from_bits, magnitude, put_byte
from featherfed.codec.eden import UNIT
from featherfed.compiling.emitter import compiled, entered, get, put

_TINY = np.float32(np.finfo(np.float32).tiny)
_UNIT = np.float32(UNIT)


@compiled
def _over(number: Any, divisor: Any) -> Any:
    """Return a quotient as `blocks.quotient`."""
    return number / divisor if divisor > ZERO else ZERO


@compiled
def _tree(x: Any, count: Any) -> Any:
    """Return the sum of the first numbers as `sums.tree`; they are used up."""
    width = 1
    while width < count:
        width *= 2
    while width >= 16:
        width //= 8
        for begin in range(width, count, width):
            for place in range(min(width, count - begin)):
                put(x, place, get(x, place) + get(x, begin + place))
        count = min(count, width)
    while width > 1:
        width //= 2
        for place in range(max(min(width, count - width), 0)):
            put(x, place, get(x, place) + get(x, width + place))
    return get(x, 0)


@compiled
def _magnitudes(values: Any, at: Any, count: Any, room: Any) -> Any:
    """Write |x| over the largest one of a block, and return that."""
    largest = from_bits(magnitude(values, at, count))
    inverse = ONE / largest if largest > _TINY else ZERO
    for place in range(count):
        put(room, place, abs(get(values, at + place)) * inverse)
    return largest


@entered
def vertex(values: Any, each: Any, scales: Any, symbols: Any, magnitudes: Any, chosen: Any) -> Any:
    """Write the scale of each block and the vertex of each `each` values (`vertex`); return whether it can be done."""
    size = len(values)
    if magnitude(values, 0, size) >= TOO_LARGE:
        return False
    for number in range(len(scales)):
        at = number * BLOCK
        count = min(BLOCK, size - at)
        largest = _magnitudes(values, at, count, magnitudes)
        whole = (count + each - 1) // each * each
        for place in range(count, whole):
            put(magnitudes, place, ZERO)
        for place in range(whole):
            put(chosen, place, ZERO)
        for begin in range(0, count, each):
            best = begin + first_largest(magnitudes, begin, each)
            put(chosen, best, get(magnitudes, best))
            value = get(values, at + best)
            is_minus = value < ZERO or (value == ZERO and ONE / value < ZERO)
            put_byte(symbols, (at + begin) // each, best - begin + (each if is_minus else 0))
        for place in range(whole):
            put(magnitudes, place, get(magnitudes, place) * get(magnitudes, place))
        put(scales, number, _over(_tree(magnitudes, whole), _tree(chosen, whole)) * largest)
    return True


@entered
def eden(
    values: Any, levels: Any, scales: Any, symbols: Any, magnitudes: Any, chosen: Any, places: Any
) -> Any:  # fmt: skip
    """Write the scale of each block and the level of each value (`eden`); return whether it can be done."""
    size, half = len(values), len(levels)
    if magnitude(values, 0, size) >= TOO_LARGE:
        return False
    for number in range(len(scales)):
        at = number * BLOCK
        count = min(BLOCK, size - at)
        largest = _magnitudes(values, at, count, magnitudes)
        for place in range(count):
            put(chosen, place, get(magnitudes, place) * get(magnitudes, place))
        squares = _tree(chosen, count)
        if half == 1:
            for place in range(count):
                put_byte(symbols, at + place, get(values, at + place) >= ZERO)
        else:
            factor = _over(_UNIT, np.sqrt(squares / np.float32(count)))
            lowest = get(levels, 0)
            for place in range(count):
                put(chosen, place, lowest)
                put(places, place, ZERO)
            for edge in range(1, half):
                below, above = get(levels, edge - 1), get(levels, edge)
                boundary, step = (above + below) / np.float32(2), above - below
                for place in range(count):
                    is_above = get(magnitudes, place) * factor > boundary
                    put(chosen, place, get(chosen, place) + (step if is_above else ZERO))
                    put(places, place, get(places, place) + (ONE if is_above else ZERO))
            for place in range(count):
                # Levels rise from the most negative.
                symbol = np.int32(get(places, place))
                is_minus = get(values, at + place) < ZERO
                put_byte(symbols, at + place, half - 1 - symbol if is_minus else half + symbol)
                put(magnitudes, place, get(magnitudes, place) * get(chosen, place))
        put(scales, number, _over(squares, _tree(magnitudes, count)) * largest)
    return True
