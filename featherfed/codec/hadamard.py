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

Why so: a butterfly of fixed order would do as well and costs numpy 6 ns a value; products with three or four matrices
of some 16 columns cost 1.3, the roundings 0.5 more. float64 would need no rounding in between and takes twice the time.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from featherfed.codec.space import F32

F64 = npt.NDArray[np.float64]
SUM_BITS = 24
"""A float32 holds every whole number of so many bits."""
INPUT_BITS = 15
LEAST_EXPONENT = -96
"""Of smaller values whole numbers of 30 bits would have a scale beyond the range of float32."""
ROOT_HALF = 11863283 / 2**24
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


_FACTORS = {256: (16, 16), 512: (32, 16), 1024: (16, 8, 8), 2048: (16, 16, 8), 4096: (16, 16, 16), 8192: (16, 8, 4, 16)}
"""The orders whose product is a block's, the lowest bits of a value's place first; smaller blocks are one product.

The fewest calls for small blocks, and the fewest multiplications for large ones, measured with OpenBLAS. From 1024 on
the last one is 2^⌊k/3⌋: sums are rounded before it.
"""


@functools.cache
def _steps(order: int, coarse: int, begun: int) -> tuple[tuple[int, int, F32], ...]:
    """Return each product's order, how far apart its values lie, and its matrix, the first one divided by 2^coarse.

    Without those over the lowest bits of a place, which were `begun`.
    """
    steps, width = [], begun
    for factor in _FACTORS.get(order, (order,)) if begun == 1 else _rest(order // begun):
        steps.append((factor, width, hadamard(factor) / np.float32(1 << coarse) if width == 1 else hadamard(factor)))
        width *= factor
    return tuple(steps)


def _rest(order: int) -> tuple[int, ...]:
    """Return powers of two, about equal, at most 16 and the last one largest, whose product is `order`."""
    exponent = order.bit_length() - 1
    count = -(-exponent // 4)
    return tuple(1 << (exponent + place) // count for place in range(count))


@functools.cache
def root(order: int) -> np.float32:
    """Return 1/√order."""
    exponent = order.bit_length() - 1
    return np.float32((ROOT_HALF if exponent % 2 else 1.0) * 2.0 ** -(exponent // 2))


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
    return np.asarray(_to_whole(runs, bits, scratch), np.float32).reshape(runs.shape[:-1])


def _to_whole(runs: F32, bits: int, scratch: F32) -> F32 | float:
    """Do `to_whole`, and return the units as (…, 1), or the unit of a single run as a number."""
    magnitudes = np.abs(runs, out=scratch[: runs.size].reshape(runs.shape))
    factors: F32 | float
    units: F32 | float
    if runs.size == runs.shape[-1]:
        # Python's numbers take a fifth of the time of arrays that hold one.
        exponent = max(math.frexp(np.maximum.reduce(magnitudes, axis=None))[1], LEAST_EXPONENT)
        factors, units = 2.0 ** (bits - exponent), 2.0 ** (exponent - bits)
    else:
        units = np.maximum.reduce(magnitudes, axis=-1, keepdims=True)
        # A float32 whose fraction is taken away is 2^(e−1).
        powers = units.view(np.int32)
        powers &= 0x7F800000
        np.maximum(units, np.float32(2.0 ** (LEAST_EXPONENT - 1)), out=units)
        factors = np.divide(2.0 ** (bits - 1), units)
        units *= np.float32(2.0 ** (1 - bits))
    runs *= factors
    np.rint(runs, out=runs)
    return units


def mix_whole(values: F32, order: int, numbers: F32, scratch: F32, begun: int = 1) -> None:
    """Multiply each run of `order` whole numbers of each row by the orthonormal matrix and the run's number, in place.

    Exact but for the scale where they are at most 2¹¹, none of them −0, and orders at most 2¹³. `values` are (rows,
    values), `numbers` (rows, runs); `scratch` has room for the values. Of values that are products with the matrix of
    order `begun` already, the rest is done.
    """
    runs = values.reshape(len(values), -1, order)
    np.multiply(_products(runs, scratch, begun=begun), (numbers * root(order))[..., None], out=runs)


def mix(values: F32, order: int, scratch: F32) -> None:
    """Multiply each run of up to 2¹³ values of each row, (rows, values), by the orthonormal matrix, in place.

    A row's bits never depend on the other rows. NaN or infinity makes NaN of its run.
    """
    runs = values.reshape(len(values), -1, order)
    units = _to_whole(runs, INPUT_BITS, scratch)
    coarse = max(order.bit_length() - 1 + INPUT_BITS - SUM_BITS, 0)
    sums = _products(runs, scratch, coarse)
    # Small negative numbers were rounded to −0, and whether a sum of such zeros is −0 depends on how it begins.
    sums += np.float32(0)
    np.multiply(sums, units * (root(order) * np.float32(1 << coarse)), out=runs)


def _products(runs: F32, scratch: F32, coarse: int = 0, begun: int = 1) -> F32:
    """Return the runs, (rows, runs, order), times the matrix of ±1, in their place or in scratch.

    With `coarse` the first matrix is divided by 2^coarse, and sums are rounded to whole numbers before the last one.
    `begun` is the order of what they were multiplied with before.
    """
    rows, order = len(runs), runs.shape[2]
    source, target = runs, scratch[: runs.size].reshape(runs.shape)
    for factor, width, matrix in _steps(order, coarse, begun):
        if coarse and width * factor == order:
            np.rint(source, out=source)
        if width > 1:
            shape: tuple[int, ...] = (rows, -1, factor, width)
            np.matmul(matrix, source.reshape(shape), out=target.reshape(shape))
        elif rows == 1:
            # The same product with half of the time around it, which is most of it for small models.
            shape = (-1, factor)
            np.dot(source.reshape(shape), matrix, out=target.reshape(shape))
        else:
            shape = (rows, -1, factor)
            np.matmul(source.reshape(shape), matrix, out=target.reshape(shape))
        source, target = target, source
    return source


def transform(values: F64, order: int) -> None:
    """Multiply each run of 2^k whole numbers up to 2^(53−k) by the matrix of ±1, in place: exact in float64."""
    left, middle, right = (hadamard(factor).astype(np.float64) for factor in _factors(order))
    first = values.reshape(-1, len(right)) @ right
    second = middle @ first.reshape(-1, len(middle), len(right))
    shape = (-1, len(left), order // len(left))
    np.matmul(left, second.reshape(shape), out=values.reshape(shape))
    values += 0.0  # as in `_products`
