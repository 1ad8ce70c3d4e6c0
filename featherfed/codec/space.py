"""The coordinates that a phone trains: all weights, or a seeded subspace of them (Konečný et al. 2016, section 2)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of coordinates that is coded on its own: one tensor's, as a rule."""

    size: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Space:
    """A linear map from coordinates c to weights: w = w₀ + expand(c).

    `expand`: (size,) → (parameters,) float32; `pull_back` is its transpose, which turns a gradient by weights into one
    by coordinates. `identity` says that both do nothing. Where coordinates are weights themselves, `entries`, (size,)
    int64, says which: training then touches no others.
    """

    parts: tuple[Part, ...]
    identity: bool
    expand: Callable[[F32], F32]
    pull_back: Callable[[F32], F32]
    entries: npt.NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(part.size for part in self.parts)
