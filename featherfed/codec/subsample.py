"""subsample(f): a seeded subset of the values, scaled so that the mean is unbiased (Konečný et al. 2016, section 3).

The n values are cut in k = max(1, round(f·n)) strata and one value of each is drawn, times the stratum's size: every
value has the same chance as its stratum's neighbours, E[x̂] = x exactly, and drawing costs k numbers instead of a
shuffle of n. Both ends draw the same positions from the seed; none travels.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import I64, Slot, Stage, Trait, check_fraction


def draw(size: int, kept: int, generator: np.random.Generator) -> I64:
    """Return one position of each stratum, rising."""
    drawn = np.empty(kept, np.int64)
    for place, _ in blocks.runs(kept):
        edges = np.arange(place.start, place.stop + 1, dtype=np.int64) * size // kept
        drawn[place] = edges[:-1] + (generator.random(len(edges) - 1) * np.diff(edges)).astype(np.int64)
    return drawn


@stage("subsample")
@dataclass(frozen=True, slots=True)
class Subsample(Stage):
    """Sends `fraction` of the values."""

    fraction: Fraction

    slot = Slot.SPARSE
    paper = "Konečný et al. 2016, arXiv 1610.05492"
    offers = frozenset({Trait.SCALED_UP})
    leaves_zeros = True
    parameter = "share of the values, above 0 and at most 1"
    example = "1/4"
    sends_positions: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    def kept(self, size: int) -> int:
        """Return how many of `size` values are sent."""
        return max(1, round(self.fraction * size)) if size else 0

    def positions_bits(self, size: int) -> float:
        """Return 0: positions never travel."""
        return 0.0

    def select(self, values: F32, generator: np.random.Generator) -> I64:
        """Return the drawn positions."""
        return draw(len(values), self.kept(len(values)), generator)

    def factors(self, size: int) -> F32:
        """Return the strata's sizes: the receiver scales, so that nothing overflows before."""
        kept = self.kept(size)
        edges = np.arange(kept + 1, dtype=np.int64) * size // max(kept, 1)
        return np.diff(edges).astype(np.float32)
