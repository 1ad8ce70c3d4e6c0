"""What (ε, δ) some rounds have cost a phone, by Google's dp-accounting.

A release of a sum with discrete Gaussian noise of deviation σ, which one phone moves by Δ at the most (L2), has ρ-zCDP
for ρ = Δ²/2σ² (Canonne, Kamath and Steinke 2020; Bun and Steinke 2016). Over rounds ρ adds up, also where each round
depends on those before; the accountant makes (ε, δ) of it through Rényi divergences. No amplification by sampling is
in it: whom a round asks is public.

**Fine noise is a Gaussian's, nearly.** Whole numbers with a Gaussian added and rounded tell no more than the Gaussian
mechanism, whose (ε, δ) is known exactly (Balle and Wang 2018; of several rounds it is that of one release with
σ/Δ = 1/√2ρ: Dong, Roth and Su 2022), and is 6 to 8 % below what Rényi divergences show. How far is the discrete
Gaussian D from that rounded one, R? At a whole number x, with z = x/σ and u uniform in ±½,

    1 + r = R(x)/D(x) = E exp(−(2xu + u²)/2σ²),    −1/24σ² ≤ r ≤ z² cosh(z/2σ)/24σ²

Both are sub-Gaussian (Canonne et al., corollary 17), so that Σz² over d coordinates is below 3d + 400 but with a chance
of e⁻¹⁰⁰ (Hsu, Kakade and Zhang 2012). Then, and if σ is 100 or more and above 2√(3d + 400), |log R/D| of all
coordinates is at most (d + 150)/7σ², and over rounds with Σσ⁻² = 2ρ/Δ² at most η = 2ρ(d + 150)/7Δ². So whatever is
(ε, δ) with R is

    (ε + 2η, e^η δ + (1 + e^(ε + η))·e⁻¹⁰⁰ a round)  with D,

where η is 10⁻⁸ or so.
"""

import math
from dataclasses import dataclass

from featherfed.errors import ConfigError

DIGITS = 2.0**-40
"""How close, relatively, a bisection comes."""
MOST_COORDINATES = 1 << 32
"""Of a sum whose noise is charged as a Gaussian's."""
SPARED = 1e-4
"""The share of δ that is kept for what noise in whole numbers is apart from a Gaussian."""
RARE = math.exp(-100 + 14)
"""The chance that it is farther apart than η in any of a million rounds."""
MOST_EXPONENT = 50.0
"""An ε above it is charged in Rényi's terms."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a release costs a phone: ρ and ξ of D_α ≤ ξ + ρα."""

    rho: float
    xi: float = 0.0


def apart(sensitivity: float, coordinates: int = MOST_COORDINATES) -> float:
    """Return η/ρ for noise in a sum of so many coordinates that a phone moves by `sensitivity` whole numbers."""
    return 2 * (coordinates + 150) / (7 * sensitivity**2)


def epsilon(rho: float, delta: float, xi: float = 0.0, *, apart: float | None = None) -> float:
    """Return the ε that D_α ≤ ξ + ρα implies with δ; raises `ConfigError` where dp-accounting is not installed.

    With `apart`, η/ρ, the ε is a Gaussian's if the noise is near enough to one.

    >>> round(epsilon(0.5, 1e-5), 3), round(epsilon(1.5, 1e-5), 3)
    (4.729, 9.01)
    >>> round(epsilon(0.5, 1e-5, apart=1e-8), 3), round(epsilon(1.5, 1e-5, apart=1e-8), 3)
    (4.377, 8.385)
    """
    if not (rho or xi):
        return 0.0
    try:
        from dp_accounting import ZCDpEvent, get_epsilon_gaussian
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise ConfigError("--dp needs dp-accounting for its account: pip install 'featherfed[dp]'") from error
    if apart is not None and not xi:
        eta = apart * rho
        found = float(get_epsilon_gaussian(1 / math.sqrt(2 * rho), delta * (1 - SPARED))) + 2 * eta
        if found < MOST_EXPONENT and 2 * eta * delta + (1 + math.exp(found)) * RARE <= SPARED * delta:
            return found
    accountant = RdpAccountant()
    accountant.compose(ZCDpEvent(rho, xi))
    return float(accountant.get_epsilon(delta))


def rho_within(most: float, delta: float, *, apart: float | None = None) -> float:
    """Return the largest ρ, within 10⁻¹² of it and not above, whose ε is at most `most`.

    >>> round(rho_within(9.00996, 1e-5), 4)
    1.5
    """
    low, high = 0.0, 1.0
    while epsilon(high, delta, apart=apart) <= most:
        low, high = high, 2 * high
    while high - low > DIGITS * high and high > DIGITS:
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(middle, delta, apart=apart) <= most else (low, middle)
    return low
