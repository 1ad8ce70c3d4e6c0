"""Sums of floats in one order of rounding, the same on every machine.

    a sum of n numbers: zeros make n a power of two; while there are 16 or more, cut them in eighths e₀ … e₇ and go on
    with the n/8 sums ((e₀ + e₁) + e₂) + … + e₇, number by number; of 8 or fewer, add the second half to the first, and
    again, down to one.

`np.add.reduce` along numbers that lie beside each other takes an order of its own, which is numpy's to change. Over
whole rows it adds one after the other, as here; tests/codec/test_sums.py holds it to that.
"""

import numpy as np
import numpy.typing as npt

from featherfed.codec.blocks import BLOCK, RUN, count
from featherfed.codec.space import F32


def tree(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the sum of each row, (rows, numbers) → (rows,) of the same type.

    >>> tree(np.arange(20.0)[None])
    array([190.])
    """
    rows, size = values.shape
    width = 1 << max(size - 1, 0).bit_length()
    if 16 <= width != size:
        # The zeros are not written: a part of an eighth is added to a part of the sums, and nothing for the rest.
        width //= 8
        whole = size // width
        sums = np.add.reduce(values[:, : whole * width].reshape(rows, whole, width), axis=1)
        sums[:, : size - whole * width] += values[:, whole * width :]
        values = sums
    elif width != size:
        padded = np.zeros((rows, width), values.dtype)
        padded[:, :size] = values
        values = padded
    while width >= 16:
        width //= 8
        values = np.add.reduce(values.reshape(rows, 8, width), axis=1)
    while width > 1:
        width //= 2
        values = values[:, :width] + values[:, width:]
    return values[:, 0]


def of_blocks(values: F32) -> F32:
    """Return the sum of each block, (rows, values) → (rows, blocks) float32."""
    rows, size = values.shape
    whole = size - size % BLOCK
    sums = np.empty((rows, count(size)), np.float32)
    if whole:
        sums[:, : whole // BLOCK] = tree(values[:, :whole].reshape(-1, BLOCK)).reshape(rows, -1)
    if whole < size:
        sums[:, -1] = tree(values[:, whole:])
    return sums


def product(left: F32, right: F32) -> float:
    """Return ⟨left, right⟩ in float64: the sums of runs of 65536 products, one after the other.

    >>> product(np.array([1, 2], np.float32), np.array([3, 4], np.float32))
    11.0
    """
    total = 0.0
    for start in range(0, len(left), RUN):
        run = slice(start, start + RUN)
        products = left[run].astype(np.float64)
        products *= products if left is right else right[run]
        total += float(tree(products[None])[0])
    return total


def magnitude(values: F32) -> float:
    """Return Σ |values| in float64, in the order of `product`."""
    total = 0.0
    for start in range(0, len(values), RUN):
        total += float(tree(np.abs(values[start : start + RUN], dtype=np.float64)[None])[0])
    return total
