"""The transform is what its docstring says, to the bit, by a butterfly of whole numbers that Python never rounds."""

import math
from fractions import Fraction

import numpy as np
import pytest

from featherfed.codec.hadamard import hadamard, mix, mix_whole, root, scratch_for, to_whole, transform

ORDERS = [1, 2, 8, 64, 512, 1024, 2048, 8192]


def butterfly(numbers: list[int], low: int, high: int) -> list[int]:
    """Multiply by Sylvester's matrix over the bits low … high − 1 of a number's place."""
    numbers = list(numbers)
    for bit in range(low, high):
        for place in range(len(numbers)):
            if not place >> bit & 1:
                other = place | 1 << bit
                numbers[place], numbers[other] = numbers[place] + numbers[other], numbers[place] - numbers[other]
    return numbers


def nearest(value: Fraction) -> int:
    return round(value)  # of a Fraction: exact, a half to even


def slow(block: np.ndarray) -> np.ndarray:
    """The five steps, in rational numbers; the last rounding is numpy's, of an exact float64."""
    k = len(block).bit_length() - 1
    e = max(math.frexp(float(np.abs(block).max()))[1], -96)
    q = [nearest(Fraction(float(x)) * Fraction(2) ** (15 - e)) for x in block]
    assert max(map(abs, q)) <= 1 << 15
    q = butterfly(q, 0, k - k // 3)
    coarse = max(k - 9, 0)
    q = [nearest(Fraction(number, 1 << coarse)) for number in q]
    q = butterfly(q, k - k // 3, k)
    assert max(map(abs, q)) <= 1 << 24
    unit = 2.0 ** (e - 15 + coarse) * (11863283 / 2**24 if k % 2 else 1.0) * 2.0 ** -(k // 2)
    return np.array([number * unit for number in q]).astype(np.float32)


def values(order: int, kind: str) -> np.ndarray:
    generator = np.random.default_rng(order)
    drawn = {
        "normal": generator.standard_normal(order),
        "one and dust": np.where(np.arange(order) == order // 3, 1.0, 1e-4 * generator.standard_normal(order)),
        "equal": np.full(order, 0.1),
        "tiny": 1e-42 * generator.integers(-9, 9, order),
        "small": 1e-30 * generator.standard_normal(order),
        "huge": 1e36 * generator.standard_normal(order),
        "halves": (2 * generator.integers(-(1 << 14), 1 << 14, order) + 1) / 2.0,
        "zeros": np.zeros(order),
        "zeros with a sign": np.full(order, -0.0),
        "dust below": np.where(np.arange(order) == 0, 1.0, -1e-6),
    }
    return drawn[kind].astype(np.float32)


KINDS = [
    "normal",
    "one and dust",
    "equal",
    "tiny",
    "small",
    "huge",
    "halves",
    "zeros",
    "zeros with a sign",
    "dust below",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_mix_is_the_slow_reference_to_the_bit(order: int, kind: str) -> None:
    if order == 8192 and kind not in KINDS[:3]:
        pytest.skip("the smaller orders have it")
    block = values(order, kind)
    mixed = np.stack([block, block[::-1]])
    mix(mixed, order, scratch_for(mixed.size))
    assert mixed[0].tobytes() == slow(block).tobytes()
    assert mixed[1].tobytes() == slow(block[::-1]).tobytes()


@pytest.mark.parametrize("order", ORDERS)
def test_whole_numbers_are_only_scaled(order: int) -> None:
    block = np.random.default_rng(order).integers(-2048, 2049, order)
    block[0] = 2048
    k, number = order.bit_length() - 1, np.float32(0.1)
    mixed = block.astype(np.float32)[None]
    mix_whole(mixed, order, np.array([[number]]), scratch_for(order))
    expected = np.array(butterfly(block.tolist(), 0, k)).astype(np.float32) * (number * root(order))
    assert mixed[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("order", [1, 2, 16, 2048])
def test_transform_of_thirty_bits_is_exact(order: int) -> None:
    whole = np.random.default_rng(order).integers(-(1 << 30), (1 << 30) + 1, order)
    done = whole.astype(np.float64)
    transform(done, order)
    assert done.tolist() == butterfly(whole.tolist(), 0, order.bit_length() - 1)
    assert not np.signbit(done[done == 0]).any()


def test_the_matrix_is_sylvesters() -> None:
    # Entry (i, j) is −1 to the number of ones that i and j share.
    assert hadamard(64).tolist() == [[1 - 2 * ((i & j).bit_count() & 1) for j in range(64)] for i in range(64)]


@pytest.mark.parametrize("exponent", range(14))
def test_root_is_the_nearest_float32(exponent: int) -> None:
    assert root(1 << exponent) == np.float32(2.0 ** (-exponent / 2))


@pytest.mark.parametrize("kind", ["normal", "one and dust"])
def test_error_is_what_the_docstring_says(kind: str) -> None:
    block = values(8192, kind)
    mixed = block[None].copy()
    mix(mixed, 8192, scratch_for(8192))
    exact = block.astype(np.float64)
    transform(exact, 8192)
    exact /= np.sqrt(8192)
    squared = float(((mixed[0] - exact) ** 2).sum() / (exact**2).sum())
    assert squared < (1e-8 if kind == "normal" else 1e-5)


def test_what_is_not_finite_spoils_its_run_alone() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        rows = np.ones((2, 128), np.float32)
        rows[0, 3] = bad
        with np.errstate(invalid="ignore", over="ignore"):
            mix(rows, 64, scratch_for(rows.size))
        assert not np.isfinite(rows[0, :64]).any()
        assert np.isfinite(rows[0, 64:]).all() and np.isfinite(rows[1]).all()


def test_whole_numbers_use_all_their_bits() -> None:
    for scale in (1e-28, 1.0, 3e38):
        run = (np.array([0.3, -0.9, 0.0001]) * scale).astype(np.float32)
        whole = run.copy()
        (unit,) = to_whole(whole[None], 30, np.empty_like(whole))
        assert 1 << 29 <= np.abs(whole).max() <= 1 << 30
        assert (np.abs(whole.astype(np.float64) * float(unit) - run) <= float(unit) / 2).all()
