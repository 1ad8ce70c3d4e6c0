"""Many updates into the sum at once, one payload a row, where all payloads have the same places.

Decoding and adding go run by run (`rotate.SPAN`), through room that is used again, so that the only vector that is as
long as the model is the sum. Of models with small tensors several updates go through together: what a call of numpy
costs is then shared by them, and so is the seeding of their generators. Runs may go to several threads, each of which
has a room of its own.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.codec import blocks
from featherfed.codec.bits import symbols_of_bytes, unpack_rows
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.hadamard import hadamard
from featherfed.codec.layout import Layout
from featherfed.codec.payload import Kind
from featherfed.codec.rotate import SPAN, rotate_span_back, spans, whole_blocks
from featherfed.codec.space import F32
from featherfed.codec.stage import U8
from featherfed.codec.threads import EACH, Threads
from featherfed.randomness import RoundKey

if TYPE_CHECKING:
    from featherfed.codec.pipeline import Pipeline

GROWTH = 1.01 * math.sqrt(2 * blocks.BLOCK)
"""How much larger than a tensor's largest value one can be once it is rotated back, by one block or two."""
MOST = 64
"""Updates at a time, and `MOST_VALUES` of them: their signs are drawn together."""
MOST_VALUES = 1 << 21
BEGINS = 32
"""From so many values a symbol on, the first product with a Hadamard matrix is a look-up: narrower ones leave products
that cost more than what they save."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a phone sent, the key of its randomness, and its weight."""

    payload: bytes
    key: RoundKey
    weight: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part lies: from `start` on in the model, in these columns of every payload."""

    index: int
    start: int
    size: int
    numbers: slice
    codes: slice


@dataclass(frozen=True, slots=True)
class _Run:
    """A span of a part of some updates: `numbers`, (rows, …), are its values, or those of the blocks of its `codes`."""

    place: _Place
    span: slice
    numbers: F32
    codes: U8 | None
    signs: U8 | None
    weights: npt.NDArray[np.int64]


class _Room:
    """Where one thread decodes: room for `values` of a run, and for what is made of them on the way."""

    def __init__(self, size: int) -> None:
        self.values = np.empty(size, np.float32)
        self.sums = np.empty(size + 8, np.float64)
        self.scratch = self.sums.view(np.float32)


class _Codes:
    """What codes stand for: bytes of several symbols, or unpacked symbols; each for `each` whole numbers."""

    def __init__(self, values: F32, bits: int) -> None:
        self._unpacked_bits = 0
        if values.shape[1] == 1 and 8 % bits == 0:
            self._table = values[:, 0][symbols_of_bytes(bits)]
        else:
            self._unpacked_bits, self._table = bits, values
        self.each = self._table.shape[1]
        # (D, D) is symmetric; zeros among the sums are +0, as those of `hadamard` are.
        self._begun = self._table @ hadamard(self.each) if self.each >= BEGINS else self._table

    def begun(self, order: int) -> int:
        """Return how far `whole` can take the products of blocks of an order."""
        return self.each if BEGINS <= self.each <= order else 1

    def of(self, codes: U8, size: int) -> U8:
        """Return the codes that a part of `size` values has in each row of bytes."""
        if not self._unpacked_bits:
            return codes
        return unpack_rows(codes, -(-size // self.each), self._unpacked_bits)

    def fit(self, codes: U8, size: int) -> npt.NDArray[np.bool_]:
        """Return for each row whether its last code stands for nothing beyond `size`."""
        beyond = size % self.each
        if not self._unpacked_bits or not beyond:
            return np.ones(len(codes), np.bool_)
        nothing = np.asarray((self._table[:, beyond:] == 0).all(axis=1))
        return nothing[codes[:, -1]]

    def whole(self, codes: U8, room: F32, *, begun: bool) -> F32:
        """Return the whole numbers of codes, (rows, codes), or their products with the first matrix, in `room`."""
        shape = (*codes.shape, self.each)
        values = room[: math.prod(shape)]
        (self._begun if begun else self._table).take(codes, axis=0, out=values.reshape(shape), mode="clip")
        return values.reshape(len(codes), -1)


class Rows:
    """Adds updates of a pipeline whose payloads all have the same places (`Pipeline.in_rows`)."""

    def __init__(
        self, pipeline: "Pipeline", layout: Layout, total: ExactSum, threads: Threads, *, rotated: bool
    ) -> None:
        quantizer = pipeline.quantizer
        self._rotation = None if rotated else pipeline.rotation
        self._sum = total
        self._threads = threads
        self._largest = float(np.abs(quantizer.symbol_values).max())
        self._codes = _Codes(quantizer.symbol_values, quantizer.symbol_bits)
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
        self._together = min(MOST, max(1, MOST_VALUES // max(layout.size, 1)))
        # Of one row a span of blocks, or some rows of smaller tensors; and in each what its last code has beyond them.
        self._room_size = min(most * self._together, SPAN + blocks.BLOCK) + self._codes.each * MOST
        self._rooms: list[_Room] = []

    def add(self, updates: Sequence[Update]) -> list[int]:
        """Add all that surely fit, and return the places of the others: to be looked at one by one."""
        left: list[int] = []
        rows: list[int] = []
        for number, update in enumerate(updates):
            (rows if len(update.payload) == self._payload_bytes else left).append(number)
        for first in range(0, len(rows), self._together):
            left += self._add_rows(updates, rows[first : first + self._together])
        return left

    def _add_rows(self, updates: Sequence[Update], rows: list[int]) -> list[int]:
        payloads = np.frombuffer(b"".join([updates[row].payload for row in rows]), np.uint8).reshape(len(rows), -1)
        exact = [np.ascontiguousarray(payloads[:, place.numbers]).view("<f4") for place in self._exact]
        scales = [np.ascontiguousarray(payloads[:, place.numbers]).view("<f4") for place in self._coded]
        codes = [self._codes.of(payloads[:, place.codes], place.size) for place in self._coded]
        fits = self._admitted(updates, rows, exact, scales, codes)
        left = [row for row, fit in zip(rows, fits, strict=True) if not fit]
        taken = [updates[row] for row, fit in zip(rows, fits, strict=True) if fit]
        if not taken:
            return left
        if left:
            exact, scales, codes = ([values[fits] for values in each] for each in (exact, scales, codes))
        weights = np.array([update.weight for update in taken])
        drawn: Sequence[U8 | None] = [None] * len(self._coded)
        if self._rotation is not None:
            sizes = [(place.index, place.size) for place in self._coded]
            drawn = self._rotation.draw_rows(sizes, [update.key for update in taken])
        runs: list[_Run] = []
        for place, values in zip(self._exact, exact, strict=True):
            runs += [
                _Run(place, span, values[some, span], None, None, weights[some])
                for span, some in self._pieces(place.size, len(taken))
            ]
        for place, numbers, symbols, signs in zip(self._coded, scales, codes, drawn, strict=True):
            runs += [
                _Run(
                    place,
                    span,
                    numbers[some, span.start // blocks.BLOCK : blocks.count(span.stop)],
                    symbols[some],
                    None if signs is None else signs[some],
                    weights[some],
                )
                for span, some in self._pieces(place.size, len(taken))
            ]
        self._threads.share(runs, self._add_runs, most=self._sum.size // EACH)
        return left

    def _add_runs(self, runs: Iterator[_Run]) -> None:
        """Decode runs and add them. Called in several threads at once."""
        try:
            room = self._rooms.pop()
        except IndexError:
            room = _Room(self._room_size)
        for run in runs:
            values = run.numbers if run.codes is None else self._decoded(run, run.codes, room)
            self._sum.add_run(run.place.start + run.span.start, values, run.weights, room.sums)
        self._rooms.append(room)

    def _admitted(
        self, updates: Sequence[Update], rows: list[int], exact: list[F32], scales: list[F32], codes: list[U8]
    ) -> list[bool]:
        """Return for each row whether its update is counted: what may be wrong with the others is not said here."""
        growth = self._largest * (1.0 if self._rotation is None else GROWTH)
        largest = np.zeros(len(rows))
        with np.errstate(invalid="ignore"):
            for values, factor in [*((values, 1.0) for values in exact), *((values, growth) for values in scales)]:
                # NaN where one is: no row with it is admitted.
                bounds = np.abs(values).max(axis=1, initial=0.0).astype(np.float64)
                np.maximum(largest, factor * bounds, out=largest)
        for place, symbols in zip(self._coded, codes, strict=True):
            largest[~self._codes.fit(symbols, place.size)] = np.nan
        return [self._sum.admit(float(bound), updates[row].weight) for row, bound in zip(rows, largest, strict=True)]

    def _pieces(self, size: int, rows: int) -> Iterator[tuple[slice, slice]]:
        """Yield spans of a part of `size` values, each with the rows that there is room for."""
        for span in spans(size):
            together = max(1, SPAN // (span.stop - span.start))
            for first in range(0, rows, together):
                yield span, slice(first, first + together)

    def _decoded(self, run: _Run, codes: U8, room: _Room) -> F32:
        """Return the values of a run, (rows, span), in the room."""
        each, place, span = self._codes.each, run.place, run.span
        codes = codes[:, span.start // each : -(-span.stop // each)]
        main, order = whole_blocks(place.size)
        begun = 1 if run.signs is None else self._codes.begun(order)
        values = self._codes.whole(codes, room.values, begun=begun > 1)
        tail = slice(min(span.stop, main) - span.start, span.stop - span.start)
        if begun > 1 and tail.start < tail.stop:
            # Behind the whole blocks, these go through the block that overlaps them alone.
            plain = self._codes.whole(codes[:, tail.start // each :], room.scratch, begun=False)
            values[:, tail] = plain[:, : tail.stop - tail.start]
        values = values[:, : tail.stop]
        if run.signs is None:
            blocks.multiply(values, run.numbers)
        else:
            rotate_span_back(values, run.signs, span, place.size, room.scratch, run.numbers, begun=begun)
        return values
