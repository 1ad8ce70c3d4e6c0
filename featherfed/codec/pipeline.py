"""A pipeline: from a phone's update to the bytes that travel, and back, and into the server's sum.

::

    weights ── space ──► coordinates ──┬─ small parts ──────────────────────────► float32 ─┐
               mask, lowrank, subspace │                                                    ├─► payload
                                       └─ sparse ──► rotation ──► quantizer ──► coder ─────┘
                                          positions               header        symbols

The payload is the parts' bytes one after the other, each `positions + header + symbols`; all lengths follow from the
spec and the layout or stand in the bytes themselves. `len(payload)` is the size of an update.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.bits import look_up_packed, packed_bytes
from featherfed.codec.floats import NO_SYMBOLS, Float32
from featherfed.codec.fold import Fold
from featherfed.codec.grammar import parse_stages
from featherfed.codec.layout import Layout
from featherfed.codec.levels import Levels
from featherfed.codec.packed import Packed
from featherfed.codec.space import F32, Part, Space
from featherfed.codec.stage import U8, Coder, Quantizer, Reader, Rotation, Slot, Sparse, Stage, Structured, finite
from featherfed.randomness import RoundKey

EXACT_BELOW = 64


@dataclass(frozen=True, slots=True)
class Encoded:
    """`payload` travels; `state` is the residual to keep once the update is accepted, None where none is needed."""

    payload: bytes
    state: F32 | None


class Pipeline:
    """A strategy, built alike on both ends from its spec."""

    def __init__(self, stages: list[Stage], *, exact_below: int = EXACT_BELOW) -> None:
        """Use `Pipeline.parse`: it checks that the stages go together."""
        slots: dict[Slot, Any] = {stage.slot: stage for stage in stages}
        self.stages = tuple(stages)
        self._exact_below = slots[Slot.EXACT].below if Slot.EXACT in slots else exact_below
        self._flat = Slot.WHOLE in slots
        self._structured = cast(Structured | None, slots.get(Slot.STRUCTURED))
        self._sparse = cast(Sparse | None, slots.get(Slot.SPARSE))
        self.rotation = cast(Rotation | None, slots.get(Slot.ROTATION))
        self.quantizer = cast(Quantizer, slots.get(Slot.QUANTIZER, Float32()))
        self._levels = cast(Levels | None, self.quantizer if self.quantizer.in_blocks else None)
        self._coder = cast(Coder, slots.get(Slot.CODER, Packed()))
        self.needs_state = any(stage.needs_state for stage in stages)
        self.unbiased = all(stage.unbiased for stage in stages)
        self.leaves_zeros = any(stage.leaves_zeros for stage in stages)

    @classmethod
    def parse(cls, spec: str, *, direction: str = "uplink", exact_below: int = EXACT_BELOW) -> "Pipeline":
        """Return the pipeline of a spec or preset for `uplink` or `downlink`; raises `SpecError`.

        >>> str(Pipeline.parse("konecny-256x"))
        'subsample(1/16) | rotate | quantize(2)'
        """
        return cls(parse_stages(spec, direction=direction), exact_below=exact_below)

    def __str__(self) -> str:
        return " | ".join(map(str, self.stages))

    @property
    def structured(self) -> bool:
        """Whether phones train other coordinates than the weights."""
        return self._structured is not None

    @property
    def sums_rotated(self) -> bool:
        """Whether the server sums before the inverse rotation: all phones share it, and all is linear after it."""
        return bool(self.rotation and self.rotation.shared and not self._sparse and not self._structured)

    @property
    def in_rows(self) -> bool:
        """Whether all payloads have the same places, with a few levels in whole bytes: many are decoded at once."""
        levels = len(self.quantizer.block_levels) and 8 % self.quantizer.symbol_bits == 0
        dense = not self._sparse and not self._structured
        return bool(self.rotation and dense and levels and self._coder.fixed_size)

    def space(self, layout: Layout, key: RoundKey) -> Space:
        """Return the coordinates that the phone of `key` trains in its round."""
        if self._structured is not None:
            return self._structured.space(layout, key, self._exact_below)
        if self._flat:
            parts: tuple[Part, ...] = (Part(layout.size, layout.size < self._exact_below),)
        else:
            parts = tuple(Part(tensor.size, tensor.size < self._exact_below) for tensor in layout.tensors)
        return Space(parts, True, _same, _same)

    def encode(self, coordinates: F32, layout: Layout, key: RoundKey, state: F32 | None = None) -> Encoded:
        """Return the payload for the coordinates' change, (space.size,) float32, given the residual of earlier ones."""
        space = self.space(layout, key)
        if self.needs_state and state is not None:
            coordinates = coordinates + state
        generator = key.generator("encode")
        pieces: list[bytes] = []
        for index, part, start in space.places():
            values = coordinates[start : start + part.size]
            if part.exact:
                pieces.append(values.astype("<f4").tobytes())
                continue
            if self._sparse:
                positions = self._sparse.select(values, key.generator(f"sparse/{index}"))
                values = values[positions]
                if self._sparse.sends_positions:
                    pieces.append(self._coder.encode_positions(positions, part.size))
            header, symbols = self._quantized(values, generator, key, index)
            pieces.append(header)
            if self.quantizer.symbol_bits:
                pieces.append(self._coder.encode(symbols, self.quantizer))
        payload = b"".join(pieces)
        if not self.needs_state:
            return Encoded(payload, None)
        residual = self.coordinates(payload, space, key, rotated=False)
        return Encoded(payload, np.subtract(coordinates, residual, out=residual))

    def _quantized(self, values: F32, generator: np.random.Generator, key: RoundKey, index: int) -> tuple[bytes, U8]:
        """Return the header and the symbols of a part's kept values, rotated where they are."""
        if not self.rotation:
            return self.quantizer.encode(values, generator)
        if not self._levels or not len(values):
            return self.quantizer.encode(self.rotation.forward(values, key, index), generator)
        # Blocks know nothing of each other: run by run there is never a rotated vector as long as the model.
        runs = [self.quantizer.encode(run, generator) for run in self.rotation.forward_runs(values, key, index)]
        return b"".join(header for header, _ in runs), np.concatenate([symbols for _, symbols in runs])

    def decode(self, payload: bytes, layout: Layout, key: RoundKey) -> F32:
        """Return the update, (layout.size,) float32 and finite; raises `CodecError` for any other bytes."""
        space = self.space(layout, key)
        coordinates = self.coordinates(payload, space, key, rotated=False)
        if space.identity:
            return coordinates
        with np.errstate(over="ignore", invalid="ignore"):
            return finite(space.expand(coordinates))

    def coordinates(self, payload: bytes, space: Space, key: RoundKey, *, rotated: bool) -> F32:
        """Return the decoded coordinates; `rotated` leaves the inverse rotation to whoever sums them."""
        reader = Reader(payload)
        result = np.empty(space.size, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for index, part, start in space.places():
                target = result[start : start + part.size]
                if part.exact:
                    target[...] = np.frombuffer(reader.take(4 * part.size), "<f4")
                else:
                    target[...] = self._part(reader, part.size, key, index, rotated=rotated)
        reader.finish()
        return finite(result)

    def _part(self, reader: Reader, size: int, key: RoundKey, index: int, *, rotated: bool) -> F32:
        if self._sparse is None:
            return self._values(reader, size, key, index, rotated=rotated)
        kept = self._sparse.kept(size)
        dense = np.zeros(size, np.float32)
        if self._sparse.sends_positions:
            positions = self._coder.decode_positions(reader, size, kept)
        else:
            positions = self._sparse.select(dense, key.generator(f"sparse/{index}"))
        dense[positions] = self._values(reader, kept, key, index, rotated=rotated) * self._sparse.factors(size)
        return dense

    def _values(self, reader: Reader, kept: int, key: RoundKey, index: int, *, rotated: bool) -> F32:
        quantizer, coder, bits = self.quantizer, self._coder, self.quantizer.symbol_bits
        header, numbers = reader.take(quantizer.header_bytes(kept)), None
        table = quantizer.table(header) if coder.fixed_size and kept else None
        if self._levels:
            numbers = self._levels.numbers(header)
        if table is not None:
            values = look_up_packed(reader.take(packed_bytes(kept, bits)), kept, bits, table)
        else:
            symbols = coder.decode(reader, quantizer.symbols(kept), quantizer) if bits else NO_SYMBOLS
            values = self._levels.whole(symbols, kept) if self._levels else quantizer.decode(header, symbols, kept)
        if self.rotation and not rotated:
            return self.rotation.backward(values, key, index, numbers)
        if numbers is not None:
            blocks.multiply(values, numbers)
        return values

    def theory_bytes(self, layout: Layout) -> float:
        """Return the size by formula: kept values × bits, headers, positions at their entropy; before `entropy`."""
        space = self.space(layout, RoundKey(0, 0))
        total = 0.0
        for part in space.parts:
            if part.exact:
                total += 4 * part.size
                continue
            kept = self._sparse.kept(part.size) if self._sparse else part.size
            bits: float = self.quantizer.symbols(kept) * self.quantizer.symbol_bits
            if self._sparse:
                bits += self._sparse.positions_bits(part.size)
            total += self.quantizer.header_bytes(kept) + bits / 8
        return total

    def max_bytes(self, layout: Layout) -> int:
        """Return the most bytes that a valid payload can have."""
        total = 0
        for part in self.space(layout, RoundKey(0, 0)).parts:
            if part.exact:
                total += 4 * part.size
                continue
            kept = self._sparse.kept(part.size) if self._sparse else part.size
            total += self.quantizer.header_bytes(kept)
            if self.quantizer.symbol_bits:
                total += self._coder.max_bytes(self.quantizer.symbols(kept), self.quantizer.symbol_bits)
            if self._sparse and self._sparse.sends_positions:
                total += self._coder.max_positions_bytes(part.size, kept)
        return total

    def fold(self, layout: Layout, key: RoundKey | None, *, updates: int = 1, clip_norm: float = math.inf) -> Fold:
        """Return an empty sum with room for so many of a round's updates, each of an L2 norm of at most `clip_norm`.

        Without a key the updates may be of several rounds, which share no rotation: each is rotated back by itself.
        """
        return Fold(self, layout, key, updates=updates, clip_norm=clip_norm)


def _same(values: F32) -> F32:
    return values
