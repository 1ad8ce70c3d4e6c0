"""Sums have the one order that their docstring gives, by a reference in numpy scalars, which round each step."""

import functools
import operator

import numpy as np
import pytest

from featherfed.codec import sums
from featherfed.codec.blocks import BLOCK, RUN

SIZES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 100, 128, 1000, 8191, 8192]


def slow(numbers: list[np.floating]) -> np.floating:
    width = 1 << (len(numbers) - 1).bit_length()
    numbers = [*numbers, *[numbers[0] * 0] * (width - len(numbers))]
    while len(numbers) >= 16:
        width = len(numbers) // 8
        numbers = [functools.reduce(operator.add, numbers[place::width]) for place in range(width)]
    while len(numbers) > 1:
        half = len(numbers) // 2
        numbers = [left + right for left, right in zip(numbers[:half], numbers[half:], strict=True)]
    return numbers[0]


def values(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 16])
def test_tree_is_the_slow_reference_to_the_bit(size: int, kind: type, rows: int) -> None:
    numbers = values(rows * size).astype(kind).reshape(rows, size)
    before = numbers.copy()
    result = sums.tree(numbers)
    assert result.dtype == kind
    assert result.tolist() == [slow(list(row)) for row in numbers]
    assert np.array_equal(numbers, before)


@pytest.mark.parametrize("size", [0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK + 77])
def test_blocks_are_summed_each_on_its_own(size: int) -> None:
    numbers = values(2 * size).astype(np.float32).reshape(2, size)
    expected = [[slow(list(row[at : at + BLOCK])) for at in range(0, size, BLOCK)] for row in numbers]
    assert sums.of_blocks(numbers).tolist() == expected


def test_a_product_is_that_of_its_runs() -> None:
    left, right = values(RUN + 5).astype(np.float32), values(RUN + 5)[::-1].astype(np.float32)
    products = left.astype(np.float64) * right
    assert sums.product(left, right) == 0.0 + slow(list(products[:RUN])) + slow(list(products[RUN:]))
    assert sums.magnitude(left) == 0.0 + slow(list(np.abs(left[:RUN], dtype=np.float64))) + slow(
        list(np.abs(left[RUN:], dtype=np.float64))
    )
    assert sums.product(left[:0], right[:0]) == 0


def test_squares_of_the_largest_numbers_are_summed() -> None:
    largest = np.full(10, np.finfo(np.float32).max)
    assert np.isclose(np.sqrt(sums.product(largest, largest)), np.sqrt(10) * float(largest[0]))
