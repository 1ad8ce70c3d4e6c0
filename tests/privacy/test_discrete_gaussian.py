"""The sampler: the distribution that its docstring says, to the bit, from the operating system's randomness."""

import math
import os
import random
from collections.abc import Callable

import numpy as np
import pytest

from featherfed.privacy import discrete_gaussian
from featherfed.privacy.discrete_gaussian import LARGEST_SIGMA, DiscreteGaussian

DRAWS = 1_000_000


def source(seed: int) -> Callable[[int], bytes]:
    """Return randomness that can be repeated."""
    return random.Random(seed).randbytes


@pytest.mark.parametrize("sigma", [1, 2, 3, 7])
def test_small_deviations_give_each_whole_number_as_often_as_they_should(sigma: int) -> None:
    drawn = DiscreteGaussian(sigma, source=source(sigma)).draw(DRAWS)
    values = np.arange(-4 * sigma, 4 * sigma + 1)
    masses = np.exp(-(values**2) / (2 * sigma**2))
    every = np.arange(-40 * sigma, 40 * sigma + 1)
    expected = DRAWS * masses / np.exp(-(every**2) / (2 * sigma**2)).sum()
    found = np.array([(drawn == value).sum() for value in values])
    chi_squared, degrees = float(((found - expected) ** 2 / expected).sum()), len(values)
    # Four deviations of χ² above its mean.
    assert chi_squared < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("sigma", [5, (1 << 31) - 1, 1 << 44, LARGEST_SIGMA])
def test_mean_variance_and_kurtosis_are_those_of_a_gaussian(sigma: int) -> None:
    drawn = DiscreteGaussian(sigma, source=source(1)).draw(DRAWS) / sigma
    assert abs(drawn.mean()) < 4 / math.sqrt(DRAWS)
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / DRAWS)
    assert abs((drawn**4).mean() - 3) < 4 * math.sqrt(96 / DRAWS)
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 4 / math.sqrt(DRAWS)


@pytest.mark.parametrize("sigma", [1, 2, 1 << 31, 3 << 40])
def test_decimals_decide_as_floats_do(sigma: int) -> None:
    """With a guard that lets no float decide, the same bits give the same numbers."""
    by_floats = DiscreteGaussian(sigma, source=source(2)).draw(400)
    by_decimals = DiscreteGaussian(sigma, source=source(2), guard=2.0).draw(400)
    assert (by_floats == by_decimals).all()


def test_word_that_is_a_limit_is_settled_by_further_bits() -> None:
    sampler = DiscreteGaussian(1)
    limits = discrete_gaussian._limits()
    tail = discrete_gaussian._tails(60)
    word = int(limits[-1])
    assert word == int(tail[1] * (1 << 64))
    # The next 64 bits of P[K ≥ 1] itself: one below them is in the tail, one above is not.
    following = int(tail[1] * (1 << 128)) & ((1 << 64) - 1)
    for bits, k in ((following - 1, 1), (following + 1, 0)):
        sampler._source = lambda size, bits=bits: bits.to_bytes(8, "little")  # type: ignore[misc]
        assert sampler._settled(word, lambda digits: discrete_gaussian._tails(digits)[1:]) == k


def test_word_of_zeros_is_no_end_of_the_tail() -> None:
    sampler = DiscreteGaussian(1, source=lambda size: b"\xff" * size)
    assert 8 < sampler._settled(0, lambda digits: discrete_gaussian._tails(digits)[1:]) < 14


def test_limits_are_what_mpmath_says() -> None:
    mpmath = pytest.importorskip("mpmath", reason="needs mpmath: pip install mpmath")
    mpmath.mp.dps = 60
    masses = [mpmath.e ** (-mpmath.mpf(k * k) / 2) for k in range(40)]
    total = sum(masses)
    wanted = {int(sum(masses[k:]) / total * 2**64) for k in range(1, 32)}
    assert sorted(wanted) == [int(limit) for limit in discrete_gaussian._limits()]


def test_noise_comes_from_the_operating_system() -> None:
    assert DiscreteGaussian(10)._source is os.urandom
    assert (DiscreteGaussian(1 << 40).draw(8) != DiscreteGaussian(1 << 40).draw(8)).any()


@pytest.mark.parametrize("sigma", [0, -1, LARGEST_SIGMA + 1])
def test_deviation_out_of_range_is_refused(sigma: int) -> None:
    with pytest.raises(ValueError, match=f"a deviation of {sigma} is not a whole number from 1"):
        DiscreteGaussian(sigma)


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    assert DiscreteGaussian(5).draw(0).shape == (0,)
