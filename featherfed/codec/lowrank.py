"""lowrank(f): H = A·B with A random and frozen, B trained and sent (Konečný et al. 2016, section 2).

A tensor's matrix form is rows × columns, in·kh·kw × out (`Tensor.matrix_shape`). Its rank is at most
r = min(rows, columns); k = max(1, round(f·r)). A is rows × k, drawn afresh for each round and phone with entries of
variance 1/rows, so that its columns are nearly orthonormal and a step on B, ΔB = −η AᵀG, moves H by about the
projection of a full step: one learning rate serves all f. B is k × columns. Vectors have no rank to save and are
trained in full.

A is random signs over √rows. B is rounded to whole numbers of 2^(e−b), where 2^(e−1) ≤ max |B| < 2^e and b is 24 less
the bits of k − 1: every sum of their product is then exact in float32, whatever multiplies the matrices (`hadamard`
says why). What is rounded off is no more than float16 would lose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from featherfed.codec.hadamard import SUM_BITS, to_whole
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.registry import stage
from featherfed.codec.rotate import draw_signs, signs
from featherfed.codec.space import F32, Part, Space
from featherfed.codec.stage import Slot, Stage, Trait, check_fraction
from featherfed.randomness import RoundKey


def _scale(rows: int) -> np.float32:
    return np.float32(1 / np.sqrt(np.float32(rows)))


@stage("lowrank")
@dataclass(frozen=True, slots=True)
class LowRank(Stage):
    """Trains matrices of `fraction` of the full rank."""

    fraction: Fraction

    slot = Slot.STRUCTURED
    paper = "Konečný et al. 2016, arXiv 1610.05492"
    offers = frozenset({Trait.SUBSPACE})
    refuses: ClassVar[Mapping[Trait, str]] = {Trait.ONE_TENSOR: "a flat model has no matrices"}
    phone_only = "nothing is trained on the downlink"
    parameter = "share of the full rank, above 0 and at most 1"
    example = "1/4"

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    def rank(self, tensor: Tensor, exact_below: int) -> int:
        """Return k, or 0 for a tensor that is trained in full."""
        if len(tensor.shape) < 2 or tensor.size < exact_below or not tensor.size:
            return 0
        rank = max(1, round(self.fraction * min(tensor.matrix_shape)))
        # A factor that is larger than the matrix saves nothing.
        return rank if rank < tensor.matrix_shape[0] else 0

    def space(self, layout: Layout, key: RoundKey, exact_below: int) -> Space:
        """Return the space of B's entries, (k, columns) of each matrix in C order."""
        factors: list[F32 | None] = []
        parts = []
        for index, tensor in enumerate(layout.tensors):
            rank = self.rank(tensor, exact_below)
            rows, columns = tensor.matrix_shape
            if rank:
                drawn = draw_signs(rows * rank, key.generator(f"lowrank/{index}"))
                factors.append(signs(drawn, rows * rank).reshape(rows, rank))
                parts.append(Part(rank * columns, False))
            else:
                factors.append(None)
                parts.append(Part(tensor.size, tensor.size < exact_below))
        ends = np.cumsum([part.size for part in parts])

        def expand(coordinates: F32) -> F32:
            weights = np.empty(layout.size, np.float32)
            for (tensor, place), factor, end, part in zip(layout.slices(), factors, ends, parts, strict=True):
                mine = coordinates[end - part.size : end]
                if factor is None:
                    weights[place] = mine
                else:
                    rows, columns = tensor.matrix_shape
                    whole = mine.copy()
                    unit = to_whole(whole[None], SUM_BITS - (len(factor.T) - 1).bit_length(), np.empty_like(whole))
                    product = whole.reshape(-1, columns).T @ factor.T
                    product += np.float32(0)  # a sum of −0 alone is +0 in one library and −0 in another
                    product *= unit * _scale(rows)
                    weights[place] = product.ravel()  # torch keeps the output dimension first
            return weights

        def pull_back(gradient: F32) -> F32:
            coordinates = np.empty(int(ends[-1]) if len(ends) else 0, np.float32)
            for (tensor, place), factor, end, part in zip(layout.slices(), factors, ends, parts, strict=True):
                mine = gradient[place]
                if factor is not None:
                    rows, columns = tensor.matrix_shape
                    mine = (mine.reshape(columns, rows) @ factor * _scale(rows)).T.ravel()  # (k, columns)
                coordinates[end - part.size : end] = mine
            return coordinates

        return Space(tuple(parts), False, expand, pull_back)
