"""mask(f): only a seeded random pattern of entries is trained and sent (Konečný et al. 2016, section 2).

The pattern is fresh for each round and phone; entries outside of it stay as they were. One entry of each of
k = max(1, round(f·n)) strata is drawn, as in `subsample`, but nothing is scaled: the entries are trained, not sampled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from featherfed.codec.layout import Layout
from featherfed.codec.registry import stage
from featherfed.codec.space import F32, Part, Space
from featherfed.codec.stage import Slot, Stage, Trait, check_fraction
from featherfed.codec.subsample import draw
from featherfed.randomness import RoundKey


@stage("mask")
@dataclass(frozen=True, slots=True)
class Mask(Stage):
    """Trains `fraction` of each tensor's entries."""

    fraction: Fraction

    slot = Slot.STRUCTURED
    paper = "Konečný et al. 2016, arXiv 1610.05492"
    offers = frozenset({Trait.SUBSPACE})
    refuses: ClassVar[Mapping[Trait, str]] = {Trait.ONE_TENSOR: "a mask draws in each tensor"}
    phone_only = "nothing is trained on the downlink"
    leaves_zeros = True
    parameter = "share of the entries, above 0 and at most 1"
    example = "1/4"

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    def space(self, layout: Layout, key: RoundKey, exact_below: int) -> Space:
        """Return the entries of one phone in one round."""
        chosen, parts = [], []
        for index, (tensor, place) in enumerate(layout.slices()):
            if tensor.size < exact_below:
                positions = np.arange(tensor.size, dtype=np.int64)
            else:
                kept = max(1, round(self.fraction * tensor.size)) if tensor.size else 0
                positions = draw(tensor.size, kept, key.generator(f"mask/{index}"))
            chosen.append(place.start + positions)
            parts.append(Part(len(positions), tensor.size < exact_below))
        entries = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)

        def expand(coordinates: F32) -> F32:
            weights = np.zeros(layout.size, np.float32)
            weights[entries] = coordinates
            return weights

        def pull_back(gradient: F32) -> F32:
            taken: F32 = gradient[entries]
            return taken

        return Space(tuple(parts), False, expand, pull_back, entries)
