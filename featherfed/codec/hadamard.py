"""The Hadamard transform, to the same bits on every machine: matrix products of whole numbers, whose sums are exact.

A matrix library sums in an order of its own, which changes with its kernels and threads, with the CPU, with fused
multiply-add. Sums of whole numbers up to 2²⁴ are exact in float32, so that no order can change them. A block x of
B = 2^k values is therefore turned into whole numbers first; with 2^(e−1) ≤ max |x| < 2^e, or e = −96 if that is more:

1. q = x · 2^(15−e), rounded to whole numbers: |q| ≤ 2¹⁵.
2. Sylvester's matrix over the low k − ⌊k/3⌋ bits of a value's place, at most 9: sums are at most 2²⁴.
3. For k > 9 each sum is rounded to a multiple of 2^(k−9).
4. The matrix over the other ⌊k/3⌋ bits: multiples of 2^(k−9), at most 2^(15+k), 24 bits again.
5. times 2^(e−15)/√B, one rounding to float32. A sum that is zero is +0.

All roundings are to nearest even, and 1/√B is 2^(−k/2), or for odd k the float32 nearest to √½ times 2^(−(k−1)/2).
Values that are whole already, and at most 2¹¹, stay below 2²⁴ all the way: only the scale is left of all this, and the
decoders of quantizers whose levels are small whole numbers take that way (`mix_whole`).

The error of a block of 8192 normal values is a vNMSE of 2·10⁻⁹ to 7·10⁻⁹, a millionth of what eden(4) leaves and less
than float16's; at worst, of one value and dust, it is below 10⁻⁵.

Why so: a butterfly of fixed order would do as well and costs numpy 6 ns a value; three products with matrices of some
16 columns cost 1.5, the roundings 0.5 more. float64 would need no rounding in between and takes twice the time.
"""

import functools

import numpy as np
import numpy.typing as npt

from featherfed.codec.space import F32

F64 = npt.NDArray[np.float64]
SUM_BITS = 24
"""A float32 holds every whole number of so many bits."""
INPUT_BITS = 15
_LEAST_POWER = np.float32(2.0**-97)
"""Of smaller values whole numbers of 30 bits would have a scale beyond the range of float32."""
_ROOT_HALF = 11863283 / 2**24
"""√½ as a float32."""


@functools.cache
def hadamard(order: int) -> F32:
    """Return the Hadamard matrix of a power-of-two order, (order, order) float32 of ±1."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _factors(order: int) -> tuple[int, int, int]:
    """Return three powers of two, about equal and the last one largest, whose product is `order`."""
    exponent = order.bit_length() - 1
    return 1 << exponent // 3, 1 << (exponent + 1) // 3, 1 << (exponent + 2) // 3


@functools.cache
def root(order: int) -> np.float32:
    """Return 1/√order."""
    exponent = order.bit_length() - 1
    return np.float32((_ROOT_HALF if exponent % 2 else 1.0) * 2.0 ** -(exponent // 2))


def scratch_for(num_values: int) -> F32:
    """Return room to mix so many values at a time, in rows or in one."""
    return np.empty(num_values + 8, np.float32)


def to_whole(runs: F32, bits: int, scratch: F32) -> F32:
    """Turn each run, (…, values), into whole numbers up to 2^bits, in place; return what they are multiples of, (…,).

    With 2^(e−1) ≤ max |x| < 2^e, or e = −96 if that is more, each value becomes the nearest multiple of 2^(e−bits).
    `bits` is at most 30, `scratch` has room for the values. Of NaN or infinity come NaN or infinity.

    >>> runs = np.array([[0.5, 0.3]], np.float32)
    >>> to_whole(runs, 2, np.empty(2, np.float32)), runs
    (array([0.25], dtype=float32), array([[2., 1.]], dtype=float32))
    """
    magnitudes = np.abs(runs, out=scratch[: runs.size].reshape(runs.shape))
    largest = np.maximum.reduce(magnitudes, axis=-1)
    # A float32 whose fraction is taken away is 2^(e−1).
    np.bitwise_and(largest.view(np.int32), 0x7F800000, out=largest.view(np.int32))
    powers = np.maximum(largest, _LEAST_POWER, out=largest)
    runs *= np.divide(2.0 ** (bits - 1), powers)[..., None]
    np.rint(runs, out=runs)
    units: F32 = np.multiply(powers, 2.0 ** (1 - bits), out=powers)
    return units


def mix_whole(values: F32, order: int, numbers: F32, scratch: F32) -> None:
    """Multiply each run of `order` whole numbers of each row by the orthonormal matrix and the run's number, in place.

    Exact but for the scale where they are at most 2¹¹, none of them −0, and orders at most 2¹³. `values` are (rows,
    values), `numbers` (rows, runs); `scratch` has room for the values.
    """
    _products(values, order, numbers * root(order), scratch)


def mix(values: F32, order: int, scratch: F32) -> None:
    """Multiply each run of up to 2¹³ values of each row, (rows, values), by the orthonormal matrix, in place.

    A row's bits never depend on the other rows. NaN or infinity makes NaN of its run.
    """
    units = to_whole(values.reshape(len(values), -1, order), INPUT_BITS, scratch)
    coarse = max(order.bit_length() - 1 + INPUT_BITS - SUM_BITS, 0)
    units *= np.float32(1 << coarse) * root(order)
    _products(values, order, units, scratch, coarse, rounded=True)


def _products(values: F32, order: int, scales: F32, scratch: F32, coarse: int = 0, *, rounded: bool = False) -> None:
    """Multiply by the matrix of ±1 in three steps, then by `scales`, (rows, runs).

    With `coarse` the first matrix is divided by 2^coarse, and sums are rounded to whole numbers before the last one.
    `rounded` says that there may be −0 among the values.
    """
    rows, size = values.shape
    left, middle, right = _factors(order)
    other = scratch[: rows * size].reshape(rows, size)
    shape: tuple[int, ...] = (rows, -1, right)
    np.matmul(values.reshape(shape), _divided(right, coarse), out=other.reshape(shape))
    shape = (rows, -1, middle, right)
    np.matmul(hadamard(middle), other.reshape(shape), out=values.reshape(shape))
    if coarse:
        np.rint(values, out=values)
    shape = (rows, -1, left, middle * right)
    np.matmul(hadamard(left), values.reshape(shape), out=other.reshape(shape))
    if rounded:
        # Small negative numbers were rounded to −0, and whether a sum of such zeros is −0 depends on how it begins.
        other += np.float32(0)
    shape = (rows, -1, order)
    np.multiply(other.reshape(shape), scales[..., None], out=values.reshape(shape))


@functools.cache
def _divided(order: int, bits: int) -> F32:
    return hadamard(order) / np.float32(1 << bits)


def transform(values: F64, order: int) -> None:
    """Multiply each run of 2^k whole numbers up to 2^(53−k) by the matrix of ±1, in place: exact in float64."""
    left, middle, right = (hadamard(factor).astype(np.float64) for factor in _factors(order))
    first = values.reshape(-1, len(right)) @ right
    second = middle @ first.reshape(-1, len(middle), len(right))
    shape = (-1, len(left), order // len(left))
    np.matmul(left, second.reshape(shape), out=values.reshape(shape))
    values += 0.0  # as in `_products`
