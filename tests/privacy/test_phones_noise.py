"""Noise that phones add: what each adds, what a sum then has and costs, and in which steps there is room for it."""

import math
import random

import numpy as np
import pytest

from featherfed.codec.steps import size_of
from featherfed.errors import SecrecyError
from featherfed.privacy.accounting import Price, epsilon
from featherfed.privacy.bounded import Bound
from featherfed.privacy.discrete_gaussian import DiscreteGaussian
from featherfed.privacy.phones_noise import (
    LEAST_SIGMA,
    Promise,
    fit_phones_noise,
    fit_servers_noise,
)

BOUND = Bound(1 / 64, 1024)
PROMISE = Promise(1.5, 0.1)


def test_honest_survivors_at_the_least_have_the_promised_noise_and_no_list_has_less() -> None:
    for members in range(5, 41):
        for least in range(max(3, members // 2), members + 1):
            sigma = PROMISE.sigma(BOUND, least, members)
            for survivors in range(least, members + 1):
                honest = survivors - int(0.1 * members)
                assert math.sqrt(honest) * sigma >= 1.5 * BOUND.sensitivity
                assert PROMISE.price(BOUND, sigma, survivors, members).rho <= 1 / (2 * 1.5**2)


def test_more_survivors_than_planned_cost_less() -> None:
    sigma = PROMISE.sigma(BOUND, 31, 34)
    prices = [PROMISE.price(BOUND, sigma, survivors, 34).rho for survivors in (31, 32, 33, 34)]
    assert prices == sorted(prices, reverse=True)
    assert prices[3] / prices[0] == pytest.approx(28 / 31)


def test_price_is_that_of_one_gaussian_but_for_what_sums_of_discrete_ones_lack() -> None:
    """At σ₁ = 1 proposition 14 of Kairouz et al. 2021 by hand, for three phones: τ = 10(e^−π² + e^−4π²/3)."""
    bound = Bound(1.0, 4)
    price = Promise(1.0, 0.0).price(bound, 1, 3, 3)
    assert price.rho == bound.squared / 6
    assert price.xi == pytest.approx(4 * 10 * (math.exp(-(math.pi**2)) + math.exp(-4 / 3 * math.pi**2)), rel=1e-12)
    assert PROMISE.price(BOUND, LEAST_SIGMA, 31, 34).xi < 1e-30


@pytest.mark.parametrize(("rho", "xi", "known"), [(0.5, 0.0, 4.729), (1.5, 0.0, 9.010), (0.5, 0.1, 4.829)])
def test_epsilon_of_a_price(rho: float, xi: float, known: float) -> None:
    pytest.importorskip("dp_accounting")
    assert epsilon(rho, 1e-5, xi) == pytest.approx(known, abs=1e-3)


def test_variance_of_a_sums_noise_is_that_of_its_phones() -> None:
    """Within 1 %, at 400,000 draws: four standard errors are 0.9 %."""
    source = random.Random(3).randbytes
    total = sum(DiscreteGaussian(5, source=source).draw(400_000) for _ in range(7))
    assert np.var(total) == pytest.approx(7 * 25, rel=0.01)
    assert np.mean(((total - np.mean(total)) / np.std(total)) ** 4) == pytest.approx(3, abs=0.04)


def test_circle_without_honest_noise_is_refused() -> None:
    with pytest.raises(SecrecyError, match="of the 4 survivors of a circle of 5 as many may be colluding"):
        Promise(1.0, 0.9).sigma(BOUND, 4, 5)


@pytest.mark.parametrize("bits", [9, 10, 12])
def test_noised_sum_seldom_wraps_in_the_fitted_step(bits: int) -> None:
    """Phones whose updates are all of the clip norm, with seven tenths of it in common."""
    members, coordinates = 34, 1024
    fit = fit_phones_noise(Promise(0.9, 0.1), coordinates, members, 31, bits)
    assert fit is not None
    sigma, draw = Promise(0.9, 0.1).sigma(fit.bound, 31, members), np.random.default_rng(0)
    common = draw.normal(0, 1, coordinates)
    common *= 0.7 * members * fit.bound.clip_steps / np.linalg.norm(common)
    sums = common + draw.normal(0, math.sqrt(members * (sigma**2 + 0.25)), (200, coordinates))
    assert (np.abs(sums) > 2 ** (bits - 1)).mean() < 1e-4


def test_wider_grids_err_less_and_narrow_ones_have_no_room() -> None:
    fits = [fit_phones_noise(PROMISE, 1024, 34, 31, bits) for bits in range(2, 17)]
    assert fits[0] is None and fits[-1] is not None and fits[-1].excess < 1.01
    found = [fit.excess for fit in fits if fit is not None]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("bits", [9, 11, 16])
def test_servers_noise_has_room_beside_the_sum_of_all_phones(bits: int) -> None:
    fit = fit_servers_noise(1.0, 2048, 100, bits)
    assert fit is not None and fit.bound == Bound(size_of(fit.step), 2048)
    common = 0.7 * 100 * fit.bound.clip_steps / math.sqrt(2048)
    assert 4 * math.sqrt(fit.bound.squared + 25 + common**2) <= 2 ** (bits - 1)
    assert fit_servers_noise(1.0, 2048, 100, 6) is None


def test_no_price_is_nothing() -> None:
    assert epsilon(Price(0.0).rho, 1e-5, Price(0.0).xi) == 0
