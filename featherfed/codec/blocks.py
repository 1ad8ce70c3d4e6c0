"""Runs of values that share one number in the header: blocks of `BLOCK`, the last one shorter."""

import numpy as np
import numpy.typing as npt

from featherfed.codec.space import F32

BLOCK = 8192
"""Four bytes for so many values are 0.4 % at one bit a value, and a rotation of this size stays in the cache."""


def count(size: int) -> int:
    """Return the number of blocks of `size` values."""
    return -(-size // BLOCK)


def per_value(numbers: F32, size: int) -> F32:
    """Return (size,) with each block's number at its values."""
    return np.repeat(numbers, BLOCK)[:size]


def multiply(values: F32, numbers: F32) -> None:
    """Multiply each block of `values` by its number, in place."""
    whole = len(values) // BLOCK
    values[: whole * BLOCK].reshape(whole, BLOCK)[...] *= numbers[:whole, None]
    if len(numbers) > whole:
        values[whole * BLOCK :] *= numbers[whole]


def reduce(function: np.ufunc, values: F32) -> npt.NDArray[np.float32]:
    """Return `function.reduce` of each block."""
    whole = len(values) // BLOCK
    result: F32 = function.reduce(values[: whole * BLOCK].reshape(whole, BLOCK), axis=1)
    if whole * BLOCK < len(values):
        result = np.append(result, function.reduce(values[whole * BLOCK :])).astype(np.float32)
    return result
