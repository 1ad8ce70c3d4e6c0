"""Many updates into the sum at once, one payload a row, where all payloads have the same places.

Decoding and adding go run by run (`rotate.SPAN`), through room that is used again, so that the only vector that is as
long as the model is the sum. Of models with small tensors several updates go through together: what a call of numpy
costs is then shared by them, and so is the seeding of their generators. Spans may go to several threads, each of which
has a room of its own. With compiled loops (`fast`) a span of all rows is one call, which lets go of Python's lock.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from featherfed.codec import blocks, fast
from featherfed.codec.bits import symbols_of_bytes, unpack_rows
from featherfed.codec.exact_sum import ROUNDER, ExactSum, scaled_weights
from featherfed.codec.hadamard import hadamard
from featherfed.codec.layout import Layout
from featherfed.codec.payload import Kind
from featherfed.codec.rotate import SPAN, rotate_span_back, spans, whole_blocks
from featherfed.codec.space import F32
from featherfed.codec.stage import U8
from featherfed.codec.threads import EACH, Threads
from featherfed.randomness import RoundKey

if TYPE_CHECKING:
    from featherfed.codec.compiled.kernels import Kernels
    from featherfed.codec.pipeline import Pipeline

GROWTH = 1.01 * math.sqrt(2 * blocks.BLOCK)
"""How much larger than a tensor's largest value one can be once it is rotated back, by one block or two."""
MOST = 64
"""Updates at a time, and `MOST_VALUES` of them: their signs are drawn together, a megabyte."""
MOST_VALUES = 1 << 23
BEGINS = 32
"""From so many values a symbol on, numpy's first product with a Hadamard matrix is a look-up: narrower ones leave
products that cost more than what they save."""


class Update(NamedTuple):
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
class _Part:
    """A part of some updates: `numbers`, (rows, …), are its values, or those of the blocks of its `codes`."""

    place: _Place
    numbers: F32
    codes: U8 | None
    signs: U8 | None


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
        self._begun = self._table @ hadamard(self.each)
        self.bits = self._unpacked_bits or 8
        """Of a code in a payload."""
        self.both = np.concatenate([self._table, self._begun]).reshape(-1)
        """What codes stand for, and behind it their products with the first matrix."""

    def begun(self, order: int) -> int:
        """Return how far `whole` can take the products of blocks of an order."""
        return self.each if BEGINS <= self.each <= order else 1

    def of(self, codes: U8, size: int) -> U8:
        """Return the codes that a part of `size` values has in each row of bytes."""
        if not self._unpacked_bits:
            return codes
        return unpack_rows(codes, -(-size // self.each), self._unpacked_bits)

    def fit(self, codes: U8, size: int) -> npt.NDArray[np.bool_]:
        """Return for each row of bytes whether its last code stands for nothing beyond `size`."""
        beyond = size % self.each
        if not self._unpacked_bits or not beyond:
            return np.ones(len(codes), np.bool_)
        nothing = (self._table[:, beyond:] == 0).all(axis=1)
        # It ends in the last byte, and may begin in the one before.
        ends = (size // self.each + 1) * self._unpacked_bits
        word = codes[:, -1].astype(np.int64)
        if codes.shape[1] > 1:
            word |= codes[:, -2].astype(np.int64) << 8
        last: npt.NDArray[np.int64] = word >> -ends % 8 & (1 << self._unpacked_bits) - 1
        return np.asarray(nothing[last])

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
        # Of a bytearray, since what is compiled is so for arrays that can be written.
        payloads = np.frombuffer(bytearray(b"").join([updates[row].payload for row in rows]), np.uint8)
        payloads = payloads.reshape(len(rows), -1)
        fits = self._admitted(updates, rows, payloads)
        left = [row for row, fit in zip(rows, fits, strict=True) if not fit]
        taken = [updates[row] for row, fit in zip(rows, fits, strict=True) if fit]
        if not taken:
            return left
        if left:
            payloads = payloads[fits]
        weights = np.array([update.weight for update in taken])
        drawn: Sequence[U8 | None] = [None] * len(self._coded)
        if self._rotation is not None:
            sizes = [(place.index, place.size) for place in self._coded]
            drawn = self._rotation.draw_rows(sizes, [update.key for update in taken])
        kernels = fast.kernels()
        parts = [_Part(place, _numbers(payloads, place), None, None) for place in self._exact]
        for place, signs in zip(self._coded, drawn, strict=True):
            codes = payloads[:, place.codes]
            if kernels is None:
                codes = self._codes.of(codes, place.size)
            parts.append(_Part(place, _numbers(payloads, place), codes, signs))
        jobs = [(part, span) for part in parts for span in spans(part.place.size)]
        with self._sum.adding() as total:

            def take(jobs: Iterator[tuple[_Part, slice]]) -> None:
                """Decode and add spans of all rows. Called in several threads at once."""
                room = self._room()
                for part, span in jobs:
                    if part.codes is None or kernels is None:
                        self._add_in_pieces(part, span, weights, room)
                    else:
                        self._add_compiled(kernels, total, part, span, payloads, weights)
                self._rooms.append(room)

            # numpy's calls are for few rows at a time, a compiled one is for all.
            together = 1 if kernels is None else len(taken)
            self._threads.share(jobs, take, most=together * self._sum.size // EACH)
        return left

    def _room(self) -> _Room:
        try:
            return self._rooms.pop()
        except IndexError:
            return _Room(self._room_size)

    def _add_compiled(
        self, kernels: "Kernels", total: npt.NDArray[np.int64], part: _Part, span: slice, payloads: U8,
        weights: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        codes, place = self._codes, part.place
        main, order = whole_blocks(place.size)
        signs = part.signs if place.size > 1 else None
        begun = codes.each if signs is not None and codes.each <= order else 1
        kernels.add_span(
            total[place.start : place.start + place.size], span, payloads, place.codes.start, codes.bits, codes.each,
            begun, codes.both, part.numbers, signs, scaled_weights(weights), ROUNDER, order, main,
        )  # fmt: skip

    def _add_in_pieces(self, part: _Part, span: slice, weights: npt.NDArray[np.int64], room: _Room) -> None:
        """Add as many rows at a time as there is room for."""
        start = part.place.start + span.start
        together = max(1, SPAN // (span.stop - span.start))
        for first in range(0, len(weights), together):
            some = slice(first, first + together)
            values = (
                part.numbers[some, span] if part.codes is None else self._decoded(part, part.codes, some, span, room)
            )
            self._sum.add_run(start, values, weights[some], room.sums)

    def _admitted(self, updates: Sequence[Update], rows: list[int], payloads: U8) -> list[bool]:
        """Return for each row whether its update is counted: what may be wrong with the others is not said here."""
        growth = self._largest * (1.0 if self._rotation is None else GROWTH)
        largest = np.zeros(len(rows))
        with np.errstate(invalid="ignore"):
            for places, factor in ((self._exact, 1.0), (self._coded, growth)):
                for place in places:
                    # NaN where one is: no row with it is admitted.
                    bounds = np.abs(_numbers(payloads, place)).max(axis=1, initial=0.0).astype(np.float64)
                    np.maximum(largest, factor * bounds, out=largest)
        for place in self._coded:
            largest[~self._codes.fit(payloads[:, place.codes], place.size)] = np.nan
        return [self._sum.admit(float(bound), updates[row].weight) for row, bound in zip(rows, largest, strict=True)]

    def _decoded(self, part: _Part, codes: U8, rows: slice, span: slice, room: _Room) -> F32:
        """Return the values of a span of some rows, (rows, span), in the room."""
        each, place = self._codes.each, part.place
        numbers = part.numbers[rows, span.start // blocks.BLOCK : blocks.count(span.stop)]
        signs = None if part.signs is None else part.signs[rows]
        codes = codes[rows, span.start // each : -(-span.stop // each)]
        main, order = whole_blocks(place.size)
        begun = 1 if signs is None else self._codes.begun(order)
        values = self._codes.whole(codes, room.values, begun=begun > 1)
        tail = slice(min(span.stop, main) - span.start, span.stop - span.start)
        if begun > 1 and tail.start < tail.stop:
            # Behind the whole blocks, these go through the block that overlaps them alone.
            plain = self._codes.whole(codes[:, tail.start // each :], room.scratch, begun=False)
            values[:, tail] = plain[:, : tail.stop - tail.start]
        values = values[:, : tail.stop]
        if signs is None:
            blocks.multiply(values, numbers)
        else:
            rotate_span_back(values, signs, span, place.size, room.scratch, numbers, begun=begun)
        return values


def _numbers(payloads: U8, place: _Place) -> F32:
    """Return the float32 of a part in each payload, (rows, …)."""
    numbers: F32 = np.ascontiguousarray(payloads[:, place.numbers]).view("<f4")
    return numbers
