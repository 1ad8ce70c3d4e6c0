"""Noise that phones add under masks, so that nobody need be trusted with it: how much each, and what a sum has then.

Each phone of a circle of m adds a discrete Gaussian of σ₁ steps to each coordinate of its whole numbers (`bounded`). A
circle's sum is opened with at least `least` survivors; of all m, ⌊γm⌋ may be in league with the server and add
nothing. So at least h = least − ⌊γm⌋ of those in an opened sum are honest, and

    σ₁ = ⌈Z Δ₂/√h⌉

makes its noise, of deviation √h σ₁, at least Z times what one phone moves it by. That is a phone's own arithmetic: it
knows Z and γ from what the run has promised, m and `least` from its circle, and holds the server to them.

What a list of L survivors costs each of them (Kairouz, Liu and Steinke 2021, proposition 14; sums of discrete Gaussians
are none, but nearly):

    D_α ≤ ξ + ρα,    ρ = Δ₂²/2nσ₁²,    ξ = dτ,    τ = 10 Σ_{k<n} exp(−2π²σ₁²k/(k + 1)),    n = L − ⌊γm⌋

ξ is below 10⁻²⁹ for a million coordinates where σ₁ ≥ 3, which is asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from featherfed.codec import steps as stepping
from featherfed.errors import SecrecyError
from featherfed.privacy.accounting import Price
from featherfed.privacy.bounded import Bound

LEAST_SIGMA = 3
LARGEST_SIGMA = 1 << 20
"""Beyond it no grid has room for a sum."""
SUM_ROOM = 4.0
"""Half a modulus in deviations of a sum: 6 values in 100,000 wrap, which adds less than a hundredth to the error."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a run has promised its phones: noise of `noise_multiplier` Z, though a share `colluding` γ add none."""

    noise_multiplier: float
    colluding: float

    @property
    def numbers(self) -> tuple[float, float]:
        """Both, as they are hashed into every key of a circle: whoever is promised less adds noise of other masks."""
        return self.noise_multiplier, self.colluding

    def honest(self, survivors: int, members: int) -> int:
        """Return how many of the survivors of a circle add noise at least.

        >>> Promise(1.0, 0.1).honest(31, 34)
        28
        """
        return survivors - int(self.colluding * members)

    def sigma(self, bound: Bound, least: int, members: int) -> int:
        """Return σ₁ in steps; raises `SecrecyError` for a circle in which nobody's noise can be counted on."""
        honest = self.honest(least, members)
        if honest < 1:
            raise SecrecyError(
                f"of the {least} survivors of a circle of {members} as many may be colluding"
                f" ({self.colluding:g} of its members): nobody's noise is left"
            )
        return max(LEAST_SIGMA, math.ceil(self.noise_multiplier * math.sqrt(bound.squared / honest)))

    def price(self, bound: Bound, sigma: int, survivors: int, members: int) -> Price:
        """Return what the opened sum of so many survivors costs each of them."""
        honest, squares = self.honest(survivors, members), sigma * sigma
        tau = 10 * math.fsum(math.exp(-2 * math.pi**2 * squares * k / (k + 1)) for k in range(1, honest))
        return Price(bound.squared / (2 * honest * squares), bound.coordinates * tau)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The step of a run: its byte as it is announced, what bounds an update in it, and how much the sum errs.

    `excess` is the variance of noise and rounding in the sum over that of noise in numbers as fine as one likes.
    """

    step: int
    bound: Bound
    excess: float


def fit_phones_noise(promise: Promise, coordinates: int, members: int, least: int, bits: int) -> Fitted | None:
    """Return the step with which a circle's noised sum has room in r bits and errs least; None where there is none."""

    def noise(bound: Bound) -> float:
        sigma = promise.sigma(bound, least, members)
        return float(members) * sigma * sigma if sigma <= LARGEST_SIGMA else math.inf

    return _fit(
        noise, promise.noise_multiplier**2 * members / promise.honest(least, members), coordinates, members, bits
    )


def fit_servers_noise(noise_multiplier: float, coordinates: int, phones: int, bits: int) -> Fitted | None:
    """Return the same for the sum of all phones of a round, to which the server adds noise."""
    squared = noise_multiplier**2
    return _fit(lambda bound: squared * bound.squared, squared, coordinates, phones, bits)


def _fit(noise: Callable[[Bound], float], ideal: float, coordinates: int, phones: int, bits: int) -> Fitted | None:
    """Return the step for a sum of `phones` with noise of a variance, in steps; `ideal`: the least, in C.

    That a sum wraps costs accuracy and no privacy: what is cut modulo 2^r was noised before.
    """
    best: Fitted | None = None
    # From C down to where 2¹⁶ steps have no room for one phone.
    for byte in range(stepping.ZERO_STEP, 31, -1):
        bound = Bound(stepping.size_of(byte), coordinates)
        variance = noise(bound) + phones / 4
        # What the phones' updates have in common is not known: as in the first round of a grid without noise.
        common = stepping.FIRST_SHARE * stepping.at_most(phones, coordinates) * bound.clip_steps
        if 2 * SUM_ROOM * math.sqrt(variance + common * common) > 1 << bits:
            continue
        excess = variance * bound.step**2 / ideal
        if best is None or excess < best.excess:
            best = Fitted(byte, bound, excess)
    return best
