"""The weighted sum of a round's updates, exact and independent of their order (`exact_sum`).

Where all phones share a rotation and nothing after it depends on the phone, rotated coordinates are summed and the mean
is rotated back once.

Updates whose payloads have the same places go through in rows (`rows`), the others one by one. Neither ever changes a
bit, and no number of threads does: the sum has Σ round(weight · value) of the values that `Pipeline.decode` gives,
whichever way they come.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.codec.clip import clip
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.layout import Layout
from featherfed.codec.rows import Rows, Update
from featherfed.codec.space import F32
from featherfed.codec.threads import Threads
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

if TYPE_CHECKING:
    from featherfed.codec.pipeline import Pipeline

__all__ = ["Fold", "Update"]


class Fold:
    """One round's sum. `weight` is that of all updates in it, `count` their number."""

    def __init__(
        self, pipeline: "Pipeline", layout: Layout, key: RoundKey | None, *, updates: int, clip_norm: float,
        threads: Threads,
    ) -> None:  # fmt: skip
        """Use `Pipeline.fold`."""
        self._pipeline, self._layout, self._key, self._threads = pipeline, layout, key, threads
        self._clip_norm = clip_norm
        self._sum = ExactSum(layout.size, updates)
        self._rotated = pipeline.sums_rotated and key is not None
        self._rows = Rows(pipeline, layout, self._sum, threads, rotated=self._rotated) if pipeline.in_rows else None

    @property
    def weight(self) -> int:
        """Sum of the weights."""
        return self._sum.weight

    @property
    def count(self) -> int:
        """Number of updates."""
        return self._sum.count

    def add(self, payload: bytes, key: RoundKey, weight: int) -> None:
        """Decode an update and add it; raises `CodecError` and leaves the sum as it was."""
        (fault,) = self.add_all([Update(payload, key, weight)])
        if fault is not None:
            raise fault

    def add_all(self, updates: Sequence[Update]) -> list[CodecError | None]:
        """Decode updates and add them; return for each what is wrong with it: such a one is left out."""
        faults: list[CodecError | None] = [None] * len(updates)
        left: Sequence[int] = range(len(updates))
        if self._rows is not None and self._clip_norm == math.inf:
            left = self._rows.add(updates)
        for number in left:
            try:
                self._add_one(updates[number])
            except CodecError as error:
                faults[number] = error
        return faults

    def _add_one(self, update: Update) -> None:
        pipeline = self._pipeline
        if self._rotated:
            space = pipeline.space(self._layout, update.key)
            # A rotation changes no norm: what is clipped here is clipped there.
            values = pipeline.coordinates(update.payload, space, update.key, rotated=True)
        else:
            values = pipeline.decode(update.payload, self._layout, update.key)
        self._sum.add(clip(values, self._clip_norm), update.weight, self._threads)

    def disturb(self, draw: Callable[[int], npt.NDArray[np.int64]]) -> None:
        """Add noise to the sum, in its whole numbers (`ExactSum.disturb`)."""
        self._sum.disturb(draw)

    def mean(self, of: int = 0) -> F32:
        """Return the weighted mean update, (parameters,) float32; `of`: what to divide by in the weight's place."""
        mean = self._sum.mean(of)
        rotation = self._pipeline.rotation
        if self._rotated and rotation is not None and self._key is not None:
            for part in self._pipeline.formats(self._pipeline.space(self._layout, self._key)):
                if not part.exact:
                    rotation.backward(mean[part.start : part.start + part.size], self._key, part.index)
        return mean

    def merge(self, other: "Fold") -> None:
        """Add another partial sum of the same round."""
        self._sum.merge(other._sum)

    def to_bytes(self) -> bytes:
        """Return the partial sum for another process."""
        return self._sum.to_bytes()

    def merge_bytes(self, data: bytes) -> None:
        """Add a partial sum that another process wrote; raises `CodecError` if it is not of this model."""
        other = ExactSum.from_bytes(data)
        if other.size != self._layout.size:
            raise CodecError(f"partial sum of {other.size} coordinates, the model has {self._layout.size}")
        self._sum.merge(other)
