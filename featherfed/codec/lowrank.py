"""lowrank(f): H = A·B with A random and frozen, B trained and sent (Konečný et al. 2016, section 2).

A tensor's matrix form is rows × columns, in·kh·kw × out (`Tensor.matrix_shape`). Its rank is at most
r = min(rows, columns); k = max(1, round(f·r)). A is rows × k, drawn afresh for each round and phone with entries
N(0, 1/rows), so that its columns are nearly orthonormal and a step on B, ΔB = −η AᵀG, moves H by about the
projection of a full step: one learning rate serves all f. B is k × columns. Vectors have no rank to save and are
trained in full.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.space import F32, Part, Space
from featherfed.codec.stage import Slot, Stage, check_fraction
from featherfed.randomness import RoundKey


@dataclass(frozen=True, slots=True)
class LowRank(Stage):
    """Trains matrices of `fraction` of the full rank."""

    fraction: Fraction

    name = "lowrank"
    slot = Slot.STRUCTURED
    paper = "Konečný et al. 2016, arXiv 1610.05492"
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
                drawn = key.generator(f"lowrank/{index}").standard_normal((rows, rank), np.float32)
                factors.append(drawn / np.sqrt(np.float32(rows)))
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
                    trained = mine.reshape(-1, tensor.matrix_shape[1])  # (k, columns)
                    weights[place] = (trained.T @ factor.T).ravel()  # torch keeps the output dimension first
            return weights

        def pull_back(gradient: F32) -> F32:
            coordinates = np.empty(int(ends[-1]) if len(ends) else 0, np.float32)
            for (tensor, place), factor, end, part in zip(layout.slices(), factors, ends, parts, strict=True):
                mine = gradient[place]
                if factor is not None:
                    rows, columns = tensor.matrix_shape
                    mine = (mine.reshape(columns, rows) @ factor).T.ravel()  # (k, columns)
                coordinates[end - part.size : end] = mine
            return coordinates

        return Space(tuple(parts), False, expand, pull_back)
