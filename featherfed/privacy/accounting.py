"""What (ε, δ) some rounds have cost a phone, by Google's dp-accounting.

A release of a sum with discrete Gaussian noise of deviation σ, which one phone moves by Δ at the most (L2), has ρ-zCDP
for ρ = Δ²/2σ² (Canonne, Kamath and Steinke 2020; Bun and Steinke 2016). Over rounds ρ adds up, also where each round
depends on those before; the accountant makes (ε, δ) of it through Rényi divergences. No amplification by sampling is
in it: whom a round asks is public.
"""

from dataclasses import dataclass

from featherfed.errors import ConfigError

DIGITS = 2.0**-40
"""How close, relatively, a bisection comes."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a release costs a phone: ρ and ξ of D_α ≤ ξ + ρα."""

    rho: float
    xi: float = 0.0


def epsilon(rho: float, delta: float, xi: float = 0.0) -> float:
    """Return the ε that D_α ≤ ξ + ρα implies with δ; raises `ConfigError` where dp-accounting is not installed.

    >>> round(epsilon(0.5, 1e-5), 3), round(epsilon(1.5, 1e-5), 3)
    (4.729, 9.01)
    """
    if not (rho or xi):
        return 0.0
    try:
        from dp_accounting import ZCDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise ConfigError("--dp needs dp-accounting for its account: pip install 'featherfed[dp]'") from error
    accountant = RdpAccountant()
    accountant.compose(ZCDpEvent(rho, xi))
    return float(accountant.get_epsilon(delta))


def rho_within(most: float, delta: float) -> float:
    """Return the largest ρ, within 10⁻¹² of it and not above, whose ε is at most `most`.

    >>> round(rho_within(9.00996, 1e-5), 4)
    1.5
    """
    low, high = 0.0, 1.0
    while epsilon(high, delta) <= most:
        low, high = high, 2 * high
    while high - low > DIGITS * high and high > DIGITS:
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(middle, delta) <= most else (low, middle)
    return low
