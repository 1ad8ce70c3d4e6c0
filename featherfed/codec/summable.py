"""A grid pipeline and a model: how the phones of a round make residues that can be added before they are decoded.

::

    coordinates ── clip to C ── sparse ── rotation ── K values ── a slice of them ── x/Δ, dither ── residues mod 2^r
                    drawn from the round's key, the same for all                     the phone's

All of what comes before the quantizer is linear and drawn from the key that a round's phones share. The kept values of
all tensors are one vector, rotated as one: there is one kind of block, and none too small for a step of its own.

With S slices a phone sends the coordinates j of one residue j mod S: whole circles of phones send one slice each, and
of what one circle cannot send, each block misses its share. Rotations are new in each round, and so are slices.

Clipping is the phone's, to the norm C of all its coordinates: nobody else sees the update.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from featherfed.codec import residues as packing
from featherfed.codec import steps as stepping
from featherfed.codec.bits import packed_bytes
from featherfed.codec.blocks import BLOCK
from featherfed.codec.clip import clip
from featherfed.codec.grammar import PRESETS
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.residues import U16, Residues
from featherfed.codec.space import F32
from featherfed.codec.stage import I64, finite
from featherfed.codec.steps import StepState
from featherfed.errors import CodecError, ConfigError, ProblemError, SpecError
from featherfed.randomness import RoundKey

DITHER_BITS = 16
"""u is an odd multiple of 2⁻¹⁷: whole numbers of 2⁻¹⁷ steps hold values, dithers and sums."""
_ROUNDER = 1.5 * 2.0**52
"""Added to a float64 below 2⁵¹ it rounds to a whole number, to nearest even, that stands in the sum's low bits."""
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a phone adds to a sum: `residues` below 2^r; `residual` is kept once they count, None where none is needed.

    `residues`: (coordinates of the slice,) uint8 for up to 8 bits, else uint16.
    """

    residues: Residues
    residual: F32 | None


class Summable:
    """A pipeline that ends in `grid(r)`, for one model, with updates of a norm of at most `clip`.

    `coordinates` is K, how many values are kept of an update, in all slices together; `bits` is r.
    """

    def __init__(self, pipeline: Pipeline, layout: Layout, *, clip: float) -> None:
        """Raise `SpecError` for a pipeline whose updates cannot be summed, `ConfigError` without a clip norm."""
        if (why := unsummable(pipeline)) is not None:
            raise SpecError(why)
        if not 0 < clip < float("inf"):
            raise ConfigError(f"{pipeline} needs --clip-norm above 0, and not {clip:g}: steps are shares of it")
        self.pipeline, self.layout, self.clip = pipeline, layout, float(clip)
        self.bits = pipeline.quantizer.symbol_bits
        parts = pipeline.formats(pipeline.space(layout, RoundKey(0, 0)))
        self.coordinates = sum(part.kept for part in parts)
        # A rest of less than half a block has no step of its own: of a few values no deviation can be told.
        self.num_blocks = max(1, (self.coordinates + BLOCK // 2) // BLOCK)

    def check(self, *, members: int, slices: int = 1) -> None:
        """Raise `SpecError` where circles of so many phones, one of so many slices each, cannot work."""
        stepping.check_members(members, self.bits)
        self._check_slice(0, slices)

    def steps(self, state: StepState | None, *, members: int) -> bytes:
        """Return a round's steps, a byte a block, for circles of at most so many phones.

        `state` is what the last round's `Summed.next_state` gave, None before any.
        """
        if state is None or state.coordinates != self.coordinates:
            return stepping.first(self.coordinates, self.num_blocks, members, self.bits)
        return state.announced(members, self.bits)

    def step_sizes(self, steps: bytes) -> list[float]:
        """Return Δ of each block; raises `CodecError` for another number of steps."""
        if len(steps) != self.num_blocks:
            raise CodecError(f"{len(steps)} steps came for {self.num_blocks} blocks of {self.coordinates} coordinates")
        return [self.clip * stepping.size_of(step) for step in steps]

    def count(self, slice_: int = 0, slices: int = 1) -> int:
        """Return how many residues a phone of a slice sends."""
        self._check_slice(slice_, slices)
        return len(range(slice_, self.coordinates, slices))

    def payload_bytes(self, count: int) -> int:
        """Return the bytes of so many packed residues."""
        return packed_bytes(count, self.bits)

    def pack(self, residues: Residues) -> bytes:
        """Return residues as they travel: r bits each, highest first, the last byte filled with zeros."""
        return packing.pack(residues, self.bits)

    def check_packed(self, data: bytes | memoryview, count: int) -> None:
        """Raise `CodecError` for bytes that `pack` makes of no residues, without unpacking them."""
        packing.check(data, count, self.bits)

    def unpack(self, data: bytes, count: int) -> Residues:
        """Return the residues; raises `CodecError` for bytes that `pack` makes of none."""
        return packing.unpack(data, count, self.bits)

    def encode(
        self, coordinates: F32, key: RoundKey, *, steps: bytes, slice_: int = 0, slices: int = 1,
        state: F32 | None = None,
    ) -> Quantized:  # fmt: skip
        """Return what the phone of `key` sends of its coordinates' change, (space.size,) float32, in a slice.

        `state` is the residual of earlier updates, as in `Pipeline.encode`. Raises `ProblemError` for NaN or infinity,
        `CodecError` for steps of another model.
        """
        left: F32 | None = None
        if state is not None and (self.pipeline.needs_state or (not self.pipeline.structured and state.any())):
            coordinates = coordinates + state
            left = np.zeros_like(state)
        coordinates = self._clipped(coordinates)
        sizes, place = self.step_sizes(steps), self._place(slice_, slices)
        values = self._kept(coordinates, key)[place]
        drawn = dither(key, len(values))
        residues = np.empty(len(values), packing.dtype_of(self.bits))
        added = np.empty(len(values), np.float32) if self.pipeline.needs_state else None
        for block, run in self.runs(slice_, slices):
            scaled = values[run].astype(np.float64)
            scaled *= (1 << DITHER_BITS) / sizes[block]
            scaled += _ROUNDER
            whole = scaled.view(np.int64)
            if added is not None:
                added[run] = self._added(whole - _ROUNDER_BITS, drawn[run], sizes[block])
            # Only the low bits count, and the low 32 of what rounds are zeros.
            low = whole.astype(np.uint32)
            low += drawn[run]
            low >>= DITHER_BITS
            low &= (1 << self.bits) - 1
            residues[run] = low
        if added is None:
            return Quantized(residues, left)
        return Quantized(residues, np.subtract(coordinates, self.spread(added, key)))

    def values(self, coordinates: F32, key: RoundKey) -> F32:
        """Return the K values of a clipped update, (space.size,), that are to be summed, (K,) float32.

        `encode` makes steps of them; here they are for who makes whole numbers of them in another way. Raises
        `ProblemError` for NaN or infinity.
        """
        return self._kept(self._clipped(coordinates), key)

    def _clipped(self, coordinates: F32) -> F32:
        try:
            return clip(finite(coordinates), self.clip)
        except CodecError as error:
            raise ProblemError(f"the update cannot be summed: {error}") from error

    @staticmethod
    def _added(whole: I64, drawn: U16, size: float) -> F32:
        """Return what values, as multiples of 2⁻¹⁶ steps, add to the decoded sum, where it does not wrap."""
        rest = (whole + drawn) & ((1 << DITHER_BITS) - 1)
        numbers = 2 * (whole - rest) + ((1 << DITHER_BITS) - 1)
        return (numbers * (size / (1 << (DITHER_BITS + 1)))).astype(np.float32)

    def runs(self, slice_: int = 0, slices: int = 1) -> Iterator[tuple[int, slice]]:
        """Yield each block with the place of its coordinates in a slice's residues; blocks without any are left out."""
        count = len(range(slice_, self.coordinates, slices))
        for block in range(self.num_blocks):
            start = max(0, -(-(block * BLOCK - slice_) // slices))
            end = max(0, -(-((block + 1) * BLOCK - slice_) // slices)) if block + 1 < self.num_blocks else count
            if start < end:
                yield block, slice(start, end)

    def spread(self, values: F32, key: RoundKey) -> F32:
        """Return the coordinates that K kept and rotated values stand for, (space.size,); changes `values`."""
        shared = key.shared()
        rotation, sparse = self.pipeline.rotation, self.pipeline.sparse
        if rotation is not None:
            values = rotation.backward(values, shared, 0)
        if sparse is None:
            return values
        space = self.pipeline.space(self.layout, shared)
        coordinates, at = np.zeros(space.size, np.float32), 0
        for part in self.pipeline.formats(space):
            positions = sparse.select(coordinates[: part.size], shared.generator(f"sparse/{part.index}"))
            run = values[at : at + part.kept] * sparse.factors(part.size)
            coordinates[part.start + positions] = run
            at += part.kept
        return coordinates

    def _kept(self, coordinates: F32, key: RoundKey) -> F32:
        """Return the K values that are sent of an update, (space.size,), rotated."""
        shared, values = key.shared(), coordinates
        rotation, sparse = self.pipeline.rotation, self.pipeline.sparse
        if sparse is not None:
            pieces = [np.zeros(0, np.float32)]
            for part in self.pipeline.formats(self.pipeline.space(self.layout, shared)):
                run = coordinates[part.start : part.start + part.size]
                pieces.append(run[sparse.select(run, shared.generator(f"sparse/{part.index}"))])
            values = np.concatenate(pieces)
        return values if rotation is None else rotation.forward(values, shared, 0)

    def _place(self, slice_: int, slices: int) -> slice:
        self._check_slice(slice_, slices)
        return slice(slice_, None, slices)

    def _check_slice(self, slice_: int, slices: int) -> None:
        if not 0 <= slice_ < slices <= max(1, self.coordinates):
            raise SpecError(f"slice {slice_} of {slices} slices of {self.coordinates} coordinates: there is none")
        if slices > 1 and self.pipeline.needs_state:
            raise SpecError(
                f"feedback does not go with {slices} slices: what a phone does not send grows without bound; leave it"
                " out, or use one circle"
            )


def dither(key: RoundKey, count: int) -> U16:
    """Return a phone's dither: w of u = (2w + 1)/2¹⁷ − ½, (count,) uint16, four of each 64-bit output, lowest first."""
    words = key.generator("dither").bit_generator.random_raw(-(-count // 4))
    return np.asarray(words, "<u8").view("<u2")[:count].astype(np.uint16, copy=False)


def unsummable(pipeline: Pipeline) -> str | None:
    """Return why a pipeline's updates cannot be summed before they are decoded, None where they can."""
    known = ", ".join(f"{name} = {spec}" for name, spec in PRESETS.items() if name.startswith("secure-"))
    if not pipeline.summed:
        quantizer = pipeline.quantizer
        why = "its symbols mean other values on each phone" if quantizer.symbol_bits else "its numbers are floats"
        return f"{pipeline} cannot be summed under a mask: {why}; use one that ends in grid, like {known}"
    rotation, sparse = pipeline.rotation, pipeline.sparse
    if (rotation is not None and not rotation.shared) or (sparse is not None and sparse.sends_positions):
        return f"{pipeline} cannot be summed: it has a rotation or positions of each phone's own; use {known}"
    return None
