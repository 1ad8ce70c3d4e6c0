"""The weighted sum of a round's updates, exact and independent of their order (`exact_sum`).

Where all phones share a rotation and nothing after it depends on the phone, rotated coordinates are summed and the mean
is rotated back once.

Decoding and adding go run by run (`rotate.SPAN`), through room that is used again, so that the only vector that is as
long as the model is the sum. Of models with small tensors several updates go through in rows: what a call of numpy
costs is then shared by them. Neither ever changes a bit: the sum has Σ round(weight · value) of the values that
`Pipeline.decode` gives, whichever way they come.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.codec import blocks
from featherfed.codec.bits import symbols_of_bytes
from featherfed.codec.clip import clip
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.layout import Layout
from featherfed.codec.payload import Kind
from featherfed.codec.rotate import SPAN, rotate_span_back, spans
from featherfed.codec.space import F32
from featherfed.codec.stage import U8
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

if TYPE_CHECKING:
    from featherfed.codec.pipeline import Pipeline

GROWTH = 1.01 * math.sqrt(2 * blocks.BLOCK)
"""How much larger than a tensor's largest value one can be once it is rotated back, by one block or two."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a phone sent, the key of its randomness, and its weight."""

    payload: bytes
    key: RoundKey
    weight: int


class Fold:
    """One round's sum. `weight` is that of all updates in it, `count` their number."""

    def __init__(
        self, pipeline: "Pipeline", layout: Layout, key: RoundKey | None, *, updates: int, clip_norm: float
    ) -> None:
        """Use `Pipeline.fold`."""
        self._pipeline, self._layout, self._key = pipeline, layout, key
        self._clip_norm = clip_norm
        self._sum = ExactSum(layout.size, updates)
        self._rotated = pipeline.sums_rotated and key is not None
        self._rows = _Rows(pipeline, layout, self._sum, rotated=self._rotated) if pipeline.in_rows else None

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
        self._sum.add(clip(values, self._clip_norm), update.weight)

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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part lies: from `start` on in the model, in these columns of every payload."""

    index: int
    start: int
    size: int
    numbers: slice
    codes: slice


class _Rows:
    """Adds updates of a pipeline whose payloads all have the same places, one payload a row."""

    MOST = 16
    """Updates at a time."""

    def __init__(self, pipeline: "Pipeline", layout: Layout, total: ExactSum, *, rotated: bool) -> None:
        quantizer = pipeline.quantizer
        self._rotation = None if rotated else pipeline.rotation
        self._sum = total
        levels = quantizer.block_levels
        self._largest = float(np.abs(levels).max())
        self._table = levels[symbols_of_bytes(quantizer.symbol_bits)]
        self._exact: list[_Place] = []
        self._coded: list[_Place] = []
        at = most = 0
        for part in pipeline.formats(pipeline.space(layout, RoundKey(0, 0))):
            columns = {}
            for field in part.fields:
                columns[field.kind] = slice(at, at + field.most_bytes)
                at += field.most_bytes
            numbers = columns[Kind.EXACT if part.exact else Kind.HEADER]
            place = _Place(part.index, part.start, part.size, numbers, columns.get(Kind.SYMBOLS, slice(at, at)))
            (self._exact if part.exact else self._coded).append(place)
            most = max(most, part.size)
        self._payload_bytes = at
        # Of one row a span of blocks, or some rows of smaller tensors.
        self._values = np.empty(min(most * self.MOST, SPAN + blocks.BLOCK) + 8 * self.MOST, np.float32)
        self._sums = np.empty(len(self._values) + 8, np.float64)
        self._scratch = self._sums.view(np.float32)

    def add(self, updates: Sequence[Update]) -> list[int]:
        """Add all that surely fit, and return the places of the others: to be looked at one by one."""
        left: list[int] = []
        rows: list[int] = []
        for number, update in enumerate(updates):
            (rows if len(update.payload) == self._payload_bytes else left).append(number)
        for first in range(0, len(rows), self.MOST):
            left += self._add_rows(updates, rows[first : first + self.MOST])
        return left

    def _add_rows(self, updates: Sequence[Update], rows: list[int]) -> list[int]:
        payloads = np.frombuffer(b"".join([updates[row].payload for row in rows]), np.uint8).reshape(len(rows), -1)
        exact = [np.ascontiguousarray(payloads[:, place.numbers]).view("<f4") for place in self._exact]
        scales = [np.ascontiguousarray(payloads[:, place.numbers]).view("<f4") for place in self._coded]
        growth = self._largest * (1.0 if self._rotation is None else GROWTH)
        largest = np.zeros(len(rows))
        with np.errstate(invalid="ignore"):
            for values, factor in [*((values, 1.0) for values in exact), *((values, growth) for values in scales)]:
                # NaN where one is: no row with it is admitted.
                bounds = np.abs(values).max(axis=1, initial=0.0).astype(np.float64)
                np.maximum(largest, factor * bounds, out=largest)
        fits = [self._sum.admit(float(bound), updates[row].weight) for row, bound in zip(rows, largest, strict=True)]
        left = [row for row, fit in zip(rows, fits, strict=True) if not fit]
        taken = [updates[row] for row, fit in zip(rows, fits, strict=True) if fit]
        if not taken:
            return left
        if left:
            payloads, exact, scales = payloads[fits], [v[fits] for v in exact], [v[fits] for v in scales]
        weights = np.array([update.weight for update in taken])
        for place, values in zip(self._exact, exact, strict=True):
            for span, some in self._pieces(place.size, len(taken)):
                self._sum.add_run(place.start + span.start, values[some, span], weights[some], self._sums)
        for place, numbers in zip(self._coded, scales, strict=True):
            drawn = None
            if self._rotation is not None:
                drawn = np.stack([self._rotation.draw(place.size, update.key, place.index) for update in taken])
            for span, some in self._pieces(place.size, len(taken)):
                values = self._whole(payloads[some, place.codes], span)
                mine = numbers[some, span.start // blocks.BLOCK : blocks.count(span.stop)]
                if drawn is None:
                    blocks.multiply(values, mine)
                else:
                    rotate_span_back(values, drawn[some], span, place.size, self._scratch, mine)
                self._sum.add_run(place.start + span.start, values, weights[some], self._sums)
        return left

    def _pieces(self, size: int, rows: int) -> Iterator[tuple[slice, slice]]:
        """Yield spans of a part of `size` values, each with the rows that there is room for."""
        for span in spans(size):
            together = max(1, SPAN // (span.stop - span.start))
            for first in range(0, rows, together):
                yield span, slice(first, first + together)

    def _whole(self, codes: U8, span: slice) -> F32:
        """Return the whole numbers of a span of a part, (rows, span), in room that the next call uses again."""
        each = self._table.shape[1]
        symbols = codes[:, span.start // each : -(-span.stop // each)]
        shape = (*symbols.shape, each)
        values = self._values[: math.prod(shape)]
        self._table.take(symbols, axis=0, out=values.reshape(shape), mode="clip")
        return values.reshape(len(symbols), -1)[:, : span.stop - span.start]
