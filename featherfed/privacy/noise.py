"""The noise of a sum of clipped updates: of which deviation, in the sum's own whole numbers, and drawn from where.

`ExactSum` has an update u in multiples of 2⁻³⁰, each coordinate rounded to the nearest:

    ‖round(2³⁰u)‖ ≤ 2³⁰‖u‖ + ½√d ≤ Δ,    Δ = 2³⁰C(1 + 2⁻²²) + ½√d

for ‖u‖ ≤ C(1 + 2⁻²²), which is what clipping in float32 leaves of C: the factor and each product are rounded by 2⁻²⁴ at
the most. So one phone moves the sum by Δ at the most, whether it is in it or not, and noise of deviation σ ≥ ZΔ makes
ρ = Δ²/2σ² ≤ 1/2Z². With a rotation that phones share the sum is one of rotated updates; their norms are the same.

The sum is divided by how many updates the round wants, not by how many came: who came is no secret, but the divisor of
a mean would be one more thing that a phone moves.
"""

import math
import os
from dataclasses import dataclass

from featherfed.codec.exact_sum import FRACTION_BITS
from featherfed.errors import ConfigError
from featherfed.privacy.accounting import MOST_COORDINATES
from featherfed.privacy.discrete_gaussian import I64, LARGEST_SIGMA, DiscreteGaussian, Source

FLOAT32_SLACK = 2.0**-22


def sensitivity(clip_norm: float, coordinates: int) -> float:
    """Return Δ, in multiples of 2⁻³⁰."""
    return clip_norm * (1 << FRACTION_BITS) * (1 + FLOAT32_SLACK) + math.sqrt(coordinates) / 2


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of deviation `sigma`, in multiples of 2⁻³⁰; `source` is a test's where it is not the operating system's."""

    sigma: int
    source: Source = os.urandom

    @classmethod
    def of(cls, noise_multiplier: float, clip_norm: float, coordinates: int) -> "Noise":
        """Return that of Z for updates that are clipped to C; raises `ConfigError` beyond what the account knows."""
        if coordinates > MOST_COORDINATES:
            raise ConfigError(f"--dp is for models of up to {MOST_COORDINATES} weights, not of {coordinates}")
        return cls(math.ceil(noise_multiplier * sensitivity(clip_norm, coordinates)))

    def draw(self, size: int) -> I64:
        """Return noise for so many coordinates, (size,) int64."""
        return DiscreteGaussian(self.sigma, source=self.source).draw(size)


def largest_product() -> float:
    """Return the largest Z · C, about: beyond it a sum has no room for its noise."""
    return LARGEST_SIGMA / (1 << FRACTION_BITS + 1)
