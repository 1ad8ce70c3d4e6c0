"""Values of the accountant, and its inverse; the table is in docs/DIFFERENTIAL_PRIVACY.md."""

import math

import pytest

from featherfed.privacy.accounting import epsilon, rho_within

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")


def of_multiplier(z: float, rounds: int) -> float:
    return rounds / (2 * z * z)


@pytest.mark.parametrize(("rounds", "value"), [(1, 4.729), (3, 9.010)])
def test_epsilons_are_the_ones_that_were_written_down(rounds: int, value: float) -> None:
    """Of z = 1 and δ 10⁻⁵, before there was any code."""
    assert epsilon(of_multiplier(1, rounds), 1e-5) == pytest.approx(value, abs=5e-4)


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
