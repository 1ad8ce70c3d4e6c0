"""subsample(f): a seeded subset of the values, scaled so that the mean is unbiased (Konečný et al. 2016, section 3).

The n values are cut in k = max(1, round(f·n)) strata and one value of each is drawn, times the stratum's size: every
value has the same chance as its stratum's neighbours, E[x̂] = x exactly, and drawing costs k numbers instead of a
shuffle of n. Both ends draw the same positions from the seed; none travels.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from featherfed.codec.space import F32
from featherfed.codec.stage import Reader, Slot, Stage, check_fraction


def strata(size: int, kept: int) -> npt.NDArray[np.int64]:
    """Return the kept + 1 edges of the strata."""
    return np.arange(kept + 1, dtype=np.int64) * size // max(kept, 1)


def draw(size: int, kept: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return one position of each stratum, rising."""
    edges = strata(size, kept)
    drawn: npt.NDArray[np.int64] = edges[:-1] + (generator.random(kept) * np.diff(edges)).astype(np.int64)
    return drawn


@dataclass(frozen=True, slots=True)
class Subsample(Stage):
    """Sends `fraction` of the values."""

    fraction: Fraction

    name = "subsample"
    slot = Slot.SPARSE
    paper = "Konečný et al. 2016, arXiv 1610.05492"
    leaves_zeros = True
    example = "1/4"

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    def kept(self, size: int) -> int:
        """Return how many of `size` values are sent."""
        return max(1, round(self.fraction * size)) if size else 0

    def positions_bits(self, size: int) -> float:
        """Return 0: positions never travel."""
        return 0.0

    def max_positions_bytes(self, size: int) -> int:
        """Return 0: positions never travel."""
        return 0

    def select(self, values: F32, generator: np.random.Generator) -> tuple[F32, bytes]:
        """Return the drawn values; the receiver scales them, so that nothing overflows here."""
        kept = self.kept(len(values))
        return values[draw(len(values), kept, generator)], b""

    def place(self, size: int, payload: Reader, generator: np.random.Generator) -> tuple[npt.NDArray[np.int64], F32]:
        """Return the drawn positions and the strata's sizes."""
        kept = self.kept(size)
        return draw(size, kept, generator), np.diff(strata(size, kept)).astype(np.float32)
