"""Runs of values that share one number in the header: blocks of `BLOCK`, the last one shorter."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from featherfed.codec.space import F32

BLOCK = 8192
"""Four bytes for so many values are 0.4 % at one bit a value, and a rotation of this size stays in the cache."""
RUN = 8 * BLOCK
"""Values that are worked on at a time: 256 KB and what is made of them stay in a core's second cache."""

TINY = float(np.finfo(np.float32).tiny)
"""The least number that has all its bits, and an inverse."""


def count(size: int) -> int:
    """Return the number of blocks of `size` values."""
    return -(-size // BLOCK)


def runs(size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the place of each run of `RUN` values, the last one shorter, and the place of its blocks' numbers."""
    for start in range(0, size, RUN):
        end = min(start + RUN, size)
        yield slice(start, end), slice(start // BLOCK, count(end))


def inverse(numbers: F32) -> F32:
    """Return 1/x of each number, 0 where that is too large for a float32."""
    # Asked of Python's floats first: of a few numbers, `where` and what it needs take five times as long.
    if min(numbers.tolist(), default=1) > TINY:
        return np.divide(1, numbers)
    return np.divide(1, numbers, out=np.zeros_like(numbers), where=numbers > TINY)


def quotient(numbers: F32, divisors: F32) -> F32:
    """Return each number over its divisor, 0 where the divisor is 0 or no number."""
    if min(divisors.tolist(), default=1) > 0:
        return np.divide(numbers, divisors)
    return np.divide(numbers, divisors, out=np.zeros_like(numbers), where=divisors > 0)


def multiply(values: F32, numbers: F32) -> None:
    """Multiply each block of `values`, (…, values), by its number, (…, blocks), in place."""
    *rows, size = values.shape
    whole = size // BLOCK
    if whole:
        values[..., : whole * BLOCK].reshape(*rows, whole, BLOCK)[...] *= numbers[..., :whole, None]
    if numbers.shape[-1] > whole:
        values[..., whole * BLOCK :] *= numbers[..., whole:]


def largest(magnitudes: F32) -> F32:
    """Return the largest of each block, (values,) → (blocks,)."""
    whole = len(magnitudes) // BLOCK
    result = np.empty(count(len(magnitudes)), np.float32)
    if whole:
        np.maximum.reduce(magnitudes[: whole * BLOCK].reshape(whole, BLOCK), axis=1, out=result[:whole])
    if whole < len(result):
        result[whole] = np.maximum.reduce(magnitudes[whole * BLOCK :])
    return result


def look_up(table: F32, symbols: npt.NDArray[np.uint8]) -> F32:
    """Return each symbol's value, (symbols,) float32."""
    values = np.empty(len(symbols), np.float32)
    for place, _ in runs(len(symbols)):
        # In runs, since numpy makes indices of eight bytes of them; clip spares it a copy, there is nothing to clip.
        table.take(symbols[place], out=values[place], mode="clip")
    return values
