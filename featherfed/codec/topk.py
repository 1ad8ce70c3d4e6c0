"""topk(f): the k = max(1, round(f·n)) values of largest magnitude (Aji and Heafield 2017; Sattler et al. 2019).

Positions travel with the values: in Golomb–Rice code (`golomb`), or as `entropy` codes them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import I64, Slot, Stage, Trait, check_fraction


@stage("topk")
@dataclass(frozen=True, slots=True)
class TopK(Stage):
    """Sends `fraction` of the values with their positions."""

    fraction: Fraction

    slot = Slot.SPARSE
    paper = "Sattler et al. 2019, arXiv 1903.02891"
    offers = frozenset({Trait.LARGEST})
    refuses: ClassVar[Mapping[Trait, str]] = {Trait.SPREAD: "a rotation spreads what top-k picks"}
    unbiased = False
    leaves_zeros = True
    parameter = "share of the values, above 0 and at most 1"
    example = "1/20"
    sends_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    def kept(self, size: int) -> int:
        """Return how many of `size` values are sent."""
        return max(1, round(self.fraction * size)) if size else 0

    def positions_bits(self, size: int) -> float:
        """Return the entropy of that many random positions."""
        p = self.kept(size) / size if size else 1.0
        return 0.0 if p >= 1 else size * -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    def select(self, values: F32, generator: np.random.Generator) -> I64:
        """Return the positions of the largest values."""
        kept = self.kept(len(values))
        if not kept:
            return np.zeros(0, np.int64)
        magnitudes = np.abs(values)
        least = np.partition(magnitudes, len(values) - kept)[len(values) - kept]
        # NaN counts as largest, as it does in a partition: the receiver refuses it. Of equal ones the first are sent.
        above = np.flatnonzero(~(magnitudes <= least))[:kept]
        equal = np.flatnonzero(magnitudes == least)[: kept - len(above)]
        return np.sort(np.concatenate([above, equal]))

    def factors(self, size: int) -> F32:
        """Return ones: values count as they are."""
        return np.ones(self.kept(size), np.float32)
