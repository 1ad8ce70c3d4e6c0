"""An update as whole numbers of a bounded norm: what is summed before it is decoded, and how far one phone moves that.

A phone clips its update to the norm C, takes it in steps of a public size (c = C/Δ of them are C), and rounds each of
d coordinates up or down at random, so that the mean is the value. Randomly rounded, a norm of c may become c + √d; so
it rounds anew until (Kairouz, Liu and Steinke 2021, arXiv 2102.06387, with β = e^−½: two tries in five are good)

    ‖q‖² ≤ Δ₂² = min{ (c + √d)², c² + d/4 + c + √d/2 }

which is one comparison of whole numbers: nothing that floats do to the update before it can break the bound. What is
random is the phone's own and no dither that others know.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featherfed.privacy.discrete_gaussian import I64, Source

TRIES = 64
"""Each succeeds with a chance of 1 − e^−½ or more: all of them fail once in 10¹⁴ updates."""
_WORD = float(1 << 32)


@dataclass(frozen=True, slots=True)
class Bound:
    """How long an update of norm C may be once it is whole numbers: of `coordinates`, with a step of `step` × C."""

    step: float
    coordinates: int

    @property
    def clip_steps(self) -> float:
        """Steps that C has: c."""
        return 1 / self.step

    @property
    def squared(self) -> int:
        """The most that ‖q‖² may be: Δ₂², cut to a whole number.

        >>> Bound(1 / 16, 1024).squared, Bound(1.0, 1024).squared
        (544, 274)
        """
        c, d = self.clip_steps, float(self.coordinates)
        root = math.sqrt(d)
        return math.floor(min((c + root) * (c + root), c * c + d / 4 + c + root / 2))

    @property
    def sensitivity(self) -> float:
        """Δ₂, in steps."""
        return math.sqrt(self.squared)

    def rounded(self, values: npt.NDArray[np.float32], clip: float, source: Source) -> I64:
        """Return an update of at most the norm `clip` as whole numbers that keep the bound, (coordinates,) int64.

        `source` gives the random bytes that it is rounded by.
        """
        scaled = values.astype(np.float64) * (self.clip_steps / clip)
        below = np.floor(scaled)
        share = scaled - below
        wholes = below.astype(np.int64)
        for _ in range(TRIES):
            drawn = np.frombuffer(source(4 * len(share)), "<u4") / _WORD
            rounded = wholes + (drawn < share)
            if self.keeps(rounded):
                return rounded
        # Towards zero no norm grows, but for what floats did to that of the update: one more is short of the bound.
        return np.trunc(scaled).astype(np.int64)

    def keeps(self, wholes: I64) -> bool:
        """Return whether whole numbers, of which int64 holds the squares, keep the bound."""
        return int((wholes * wholes).sum()) <= self.squared
