"""subspace(d): train d numbers in a seeded random subspace of all weights (Li et al. 2018, arXiv 1804.08838).

w = w₀ + P c with P of n × d, which is never built. The weights are cut in m blocks of D = 2^⌈log₂ d⌉, and block i is

    D_i H E c / √m

E pads c with zeros to D, H is the orthonormal Hadamard matrix, D_i a diagonal of random signs of block i. The columns
of P are orthonormal (up to the last block, which is cut off), so a step on c moves w by the projection of a full step.
Memory is one sign a weight. The subspace is fresh for each round and phone.

c is rounded to whole numbers of 2^(e−30), where 2^(e−1) ≤ max |c| < 2^e (of fewer bits beyond 2²³ dimensions): H is
then exact in float64 (`hadamard`), and every phone and server expands the same c to the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec.hadamard import root, to_whole, transform
from featherfed.codec.layout import Layout
from featherfed.codec.registry import stage
from featherfed.codec.rotate import draw_signs, signs
from featherfed.codec.space import F32, Part, Space
from featherfed.codec.stage import Slot, Stage, Trait
from featherfed.errors import SpecError
from featherfed.randomness import RoundKey

BITS = 30


@stage("subspace")
@dataclass(frozen=True, slots=True)
class Subspace(Stage):
    """Trains `dimensions` numbers in place of the model's weights."""

    dimensions: int

    slot = Slot.STRUCTURED
    paper = "Li et al. 2018, arXiv 1804.08838"
    offers = frozenset({Trait.SUBSPACE, Trait.WHOLLY_CODED, Trait.EVEN})
    refuses: ClassVar[Mapping[Trait, str]] = {Trait.ONE_TENSOR: "a subspace is of the whole model already"}
    phone_only = "nothing is trained on the downlink"
    parameter = "dimensions, 1 or more"
    example = "100"

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise SpecError(f"subspace({self.dimensions}) has no dimension")

    def space(self, layout: Layout, key: RoundKey, exact_below: int) -> Space:
        """Return the space of c; small tensors are part of the subspace too."""
        size = layout.size
        dimensions = min(self.dimensions, size)
        exponent = max(dimensions - 1, 0).bit_length()
        order, bits = 1 << exponent, min(BITS, 53 - exponent)
        blocks = max(1, -(-size // order))
        diagonal = signs(draw_signs(size, key.generator("subspace")), size)
        diagonal /= np.sqrt(np.float32(blocks))

        def mixed(values: F32) -> F32:
            padded = np.zeros(order, np.float32)
            padded[: len(values)] = values
            unit = to_whole(padded[None], bits, np.empty_like(padded))[0]
            whole = padded.astype(np.float64)
            transform(whole, order)
            whole *= float(unit) * float(root(order))
            return whole.astype(np.float32)

        def expand(coordinates: F32) -> F32:
            moved: F32 = np.tile(mixed(coordinates), blocks)[:size] * diagonal
            return moved

        def pull_back(gradient: F32) -> F32:
            padded = np.zeros(blocks * order, np.float32)
            np.multiply(gradient, diagonal, out=padded[:size])
            return mixed(padded.reshape(blocks, order).sum(axis=0))[:dimensions]

        return Space((Part(dimensions, False),), False, expand, pull_back)
