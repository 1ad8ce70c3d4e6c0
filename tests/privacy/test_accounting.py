"""Values of the accountant, and its inverse; the table is in docs/DIFFERENTIAL_PRIVACY.md."""

import math

import pytest

from featherfed.privacy.accounting import MOST_EXPONENT, apart, epsilon, rho_within

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")


def of_multiplier(z: float, rounds: int) -> float:
    return rounds / (2 * z * z)


@pytest.mark.parametrize(("rounds", "value"), [(1, 4.729), (3, 9.010)])
def test_epsilons_are_the_ones_that_were_written_down(rounds: int, value: float) -> None:
    """Of z = 1 and δ 10⁻⁵, before there was any code."""
    assert epsilon(of_multiplier(1, rounds), 1e-5) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("rounds", "value"), [(1, 4.377), (3, 8.385)])
def test_fine_noise_is_charged_as_a_gaussian_s(rounds: int, value: float) -> None:
    """To three digits of the analytic Gaussian mechanism (Balle and Wang 2018), of z = 1 and δ 10⁻⁵."""
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    ours = epsilon(of_multiplier(1, rounds), 1e-5, apart=apart(2.0**30))
    assert ours == pytest.approx(value, abs=5e-4)
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(1.0), rounds)
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-4)


def test_noise_that_is_not_near_enough_to_a_gaussian_is_charged_in_renyis_terms() -> None:
    assert epsilon(0.5, 1e-5, apart=1e-3) == epsilon(0.5, 1e-5)
    assert epsilon(0.5, 1e-5, 1e-30, apart=1e-8) == epsilon(0.5, 1e-5, 1e-30)
    # A chance of e⁻⁸⁶ is times e^ε.
    assert epsilon(30.0, 1e-5, apart=1e-8) == epsilon(30.0, 1e-5) > MOST_EXPONENT
    assert math.isfinite(epsilon(1e9, 1e-5, apart=1e-8))


@pytest.mark.parametrize("sigma", [100, 300])
def test_discrete_gaussian_is_as_near_to_a_rounded_one_as_is_said(sigma: int) -> None:
    """The bounds of one coordinate's ratio, at each whole number up to ten deviations."""
    far, root = 10 * sigma, sigma * math.sqrt(2)
    in_all = math.fsum(math.exp(-x * x / (2 * sigma * sigma)) for x in range(-4 * far, 4 * far + 1))
    for x in range(far + 1):
        discrete = math.exp(-x * x / (2 * sigma * sigma)) / in_all
        # Of the tail beyond, since 1 − erf loses no digits there.
        rounded = (math.erfc((x - 0.5) / root) - math.erfc((x + 0.5) / root)) / 2
        ratio, z = rounded / discrete - 1, x / sigma
        digits = 1e-9
        assert -1 / (24 * sigma**2) - digits <= ratio <= z * z * math.cosh(z / (2 * sigma)) / (24 * sigma**2) + digits


def test_how_far_a_sum_is_apart_from_a_gaussians_is_the_derived_bound() -> None:
    """A round of Z = 1 (ρ = ½) in d coordinates, of which Σz² is 3d + 400."""
    sigma, coordinates = 2000.0, 10_000
    most = (3 * coordinates + 400) * math.cosh(math.sqrt(3 * coordinates + 400) / (2 * sigma)) / (24 * sigma**2)
    assert most <= apart(sigma, coordinates) / 2 < 2 * most


@pytest.mark.parametrize("rho", [0.01, 0.5, 1.5, 20.0])
def test_epsilon_is_the_least_of_all_orders(rho: float) -> None:
    """Canonne, Kamath and Steinke 2020, proposition 12, by hand over many more orders than the library has."""
    delta = 1e-5
    orders = [1 + 10 ** (step / 400) for step in range(-1200, 1200)]
    by_hand = min(
        rho * a + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders
    )  # fmt: skip
    assert by_hand * (1 - 1e-9) <= epsilon(rho, delta) <= by_hand * 1.01


def test_gaussian_and_zcdp_agree_in_the_library() -> None:
    """Noise in whole numbers costs what the continuous Gaussian costs in Rényi's terms: ρ = 1/2z²."""
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    accountant.compose(GaussianDpEvent(1.3), 4)
    assert epsilon(of_multiplier(1.3, 4), 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)


def test_published_value_of_dp_sgd_on_mnist() -> None:
    """The library's tutorial setting (z 1.1, 256 of 60,000, 60 epochs), which this release still gives."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    event = PoissonSampledDpEvent(256 / 60_000, GaussianDpEvent(1.1))
    for kind, value in ((RdpAccountant, 2.597), (PLDAccountant, 2.382)):
        accountant = kind()
        accountant.compose(event, 14_062)
        assert accountant.get_epsilon(1e-5) == pytest.approx(value, rel=5e-4)


def test_no_round_costs_nothing() -> None:
    assert epsilon(0.0, 1e-5) == 0


@pytest.mark.parametrize("most", [0.5, 2.0, 8.0, 100.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_rho_within_an_epsilon_gives_it_back(most: float, delta: float) -> None:
    rho = rho_within(most, delta)
    assert epsilon(rho, delta) <= most < epsilon(rho * 1.0001, delta)
