"""How far one phone moves a sum, and the noise that hides it, in the whole numbers of the sum."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from featherfed.codec.clip import clip
from featherfed.codec.exact_sum import FRACTION_BITS, ExactSum
from featherfed.privacy.discrete_gaussian import LARGEST_SIGMA
from featherfed.privacy.noise import Noise, largest_product, sensitivity

F32 = np.float32


def numbers_of(total: ExactSum) -> list[int]:
    return [int(value) for value in total._settled()]


@settings(max_examples=300, deadline=None)
@given(
    update=stn.arrays(F32, st.integers(1, 300), elements=st.floats(-(2.0**20), 2.0**20, width=32)),
    others=st.integers(0, 3),
    longest=st.floats(2.0**-20, 2.0**11, width=32),
)
def test_one_phone_moves_the_sum_by_no_more_than_the_sensitivity(
    update: np.ndarray, others: int, longest: float
) -> None:
    size = len(update)
    with_it, without = ExactSum(size, 8), ExactSum(size, 8)
    for number in range(others):
        other = np.random.default_rng(number).normal(0, 1, size).astype(F32)
        with_it.add(other, 1)
        without.add(other, 1)
    with_it.add(clip(update, longest), 1)
    moved = sum((a - b) ** 2 for a, b in zip(numbers_of(with_it), numbers_of(without), strict=True))
    assert moved <= sensitivity(longest, size) ** 2


def test_update_at_the_bound_is_nearly_the_sensitivity() -> None:
    """So the bound is not loose, and the test before sees something."""
    size, longest = 1000, 0.5
    update = np.random.default_rng(0).normal(0, 1, size).astype(F32)
    total = ExactSum(size)
    total.add(clip(update, longest), 1)
    assert math.sqrt(sum(value**2 for value in numbers_of(total))) > 0.999999 * sensitivity(longest, size)


def test_noise_is_the_multiplier_times_the_sensitivity() -> None:
    noise = Noise.of(1.25, 0.5, 10_000)
    assert 1.25 * sensitivity(0.5, 10_000) <= noise.sigma < 1.25 * sensitivity(0.5, 10_000) + 1
    assert noise.sigma == pytest.approx(1.25 * 0.5 * (1 << FRACTION_BITS), rel=1e-6)


def test_variance_in_the_mean_is_that_of_the_multiplier_within_a_hundredth() -> None:
    size, phones, z, longest = 400_000, 10, 1.5, 0.8
    total = ExactSum(size, phones)
    for number in range(phones):
        total.add(clip(np.random.default_rng(number).normal(0, 1, size).astype(F32), longest), 1)
    clean = total.mean(phones).astype(np.float64)
    total.disturb(Noise(Noise.of(z, longest, size).sigma, random.Random(3).randbytes).draw)
    noise = total.mean(phones) - clean
    assert noise.var() == pytest.approx((z * longest / phones) ** 2, rel=0.01)


def test_largest_noise_that_is_allowed_fits_a_sum() -> None:
    assert Noise.of(1.0, largest_product(), 1 << 20).sigma <= LARGEST_SIGMA
    total = ExactSum(1000)
    total.add(np.full(1000, 1.0, F32), 1)
    total.disturb(Noise.of(1.0, largest_product(), 1000).draw)
    assert np.isfinite(total.mean(10)).all()
