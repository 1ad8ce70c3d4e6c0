"""A pipeline: from a phone's update to the bytes that travel, and back, and into the server's sum.

::

    weights ── space ──► coordinates ──┬─ small parts ──────────────────────────► float32 ─┐
               mask, lowrank, subspace │                                                    ├─► payload
                                       └─ sparse ──► rotation ──► quantizer ──► coder ─────┘
                                          positions               header        symbols

The payload is the parts' bytes one after the other, each `positions + header + symbols` (`payload`); all lengths follow
from the spec and the layout or stand in the bytes themselves. `len(payload)` is the size of an update.
"""

import contextlib
import math
from collections.abc import Iterator
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
from featherfed.codec.payload import Field, Kind, PartFormat, formats
from featherfed.codec.space import F32, Part, Space
from featherfed.codec.stage import I64, U8, Coder, Quantizer, Reader, Rotation, Slot, Sparse, Stage, Structured, finite
from featherfed.codec.threads import ALONE, Threads
from featherfed.errors import CodecError, FeatherfedError, ProblemError
from featherfed.randomness import RoundKey
from featherfed.user_code import place_of, reason, where

EXACT_BELOW = 64
_NO_DRAWS = RoundKey(0, 0).generator("encode")
"""For quantizers that draw nothing: to make a generator takes as long as to encode a small tensor."""


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
        self.sparse = cast(Sparse | None, slots.get(Slot.SPARSE))
        self.rotation = cast(Rotation | None, slots.get(Slot.ROTATION))
        self.quantizer = cast(Quantizer, slots.get(Slot.QUANTIZER, Float32()))
        self._levels = cast(Levels | None, self.quantizer if self.quantizer.in_blocks else None)
        self._coder = cast(Coder, slots.get(Slot.CODER, Packed()))
        # Asked for again with each update; one assignment each, since several threads may decode.
        self._known_space: tuple[Layout | None, Space] = None, Space((), True, _same, _same)
        self._known_formats: tuple[tuple[Part, ...], tuple[PartFormat, ...]] = ((), ())
        self.needs_state = any(stage.needs_state for stage in stages)
        self.unbiased = all(stage.unbiased for stage in stages)
        self.leaves_zeros = any(stage.leaves_zeros for stage in stages)
        self.summed = any(stage.summed for stage in stages)
        """Whether payloads are summed before they are decoded (`summable`): one alone has no meaning."""

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
    def foreign(self) -> bool:
        """Whether a stage is not ours."""
        return any(type(stage).__module__.partition(".")[0] != __name__.partition(".")[0] for stage in self.stages)

    @property
    def structured(self) -> bool:
        """Whether phones train other coordinates than the weights."""
        return self._structured is not None

    @property
    def sums_rotated(self) -> bool:
        """Whether the server sums before the inverse rotation: all phones share it, and all is linear after it."""
        return bool(self.rotation and self.rotation.shared and not self.sparse and not self._structured)

    @property
    def in_rows(self) -> bool:
        """Whether all payloads have the same places, with a few levels a symbol: many are decoded at once."""
        levels = self.quantizer.in_blocks and len(self.quantizer.symbol_values)
        dense = not self.sparse and not self._structured
        return bool(self.rotation and dense and levels and self._coder.fixed_size)

    def space(self, layout: Layout, key: RoundKey) -> Space:
        """Return the coordinates that the phone of `key` trains in its round: of a sum, the same for all phones."""
        if self._structured is not None:
            return self._structured.space(layout, key.shared() if self.summed else key, self._exact_below)
        known, space = self._known_space
        if known is not layout:
            sizes = [layout.size] if self._flat else [tensor.size for tensor in layout.tensors]
            space = Space(tuple(Part(size, size < self._exact_below) for size in sizes), True, _same, _same)
            self._known_space = layout, space
        return space

    def encode(self, coordinates: F32, layout: Layout, key: RoundKey, state: F32 | None = None) -> Encoded:
        """Return the payload for the coordinates' change, (space.size,) float32, given the residual of earlier ones.

        A pipeline without `feedback` that follows one with it, where a run's uplink changes, sends the residual with
        its update and leaves none; a structured one, whose coordinates are others, leaves it as it is.
        """
        space = self.space(layout, key)
        left: F32 | None = None
        if state is not None and (self.needs_state or (not self.structured and state.any())):
            coordinates = coordinates + state
            left = np.zeros_like(state)
        generator = key.generator("encode") if self.quantizer.draws else _NO_DRAWS
        pieces: list[bytes] = []
        with self._blaming("encode", ProblemError):
            for part in self.formats(space):
                made = self._made(part, coordinates[part.start : part.start + part.size], generator, key)
                pieces += [made[field.kind] for field in part.fields]
        payload = b"".join(pieces)
        if not self.needs_state:
            return Encoded(payload, left)
        residual = self.coordinates(payload, space, key, rotated=False)
        return Encoded(payload, np.subtract(coordinates, residual, out=residual))

    def _made(self, part: PartFormat, values: F32, generator: np.random.Generator, key: RoundKey) -> dict[Kind, bytes]:
        """Return the bytes of each field of a part."""
        if part.exact:
            return {Kind.EXACT: values.astype("<f4", copy=False).tobytes()}
        made = {}
        if self.sparse:
            positions = self.sparse.select(values, key.generator(f"sparse/{part.index}"))
            values = values[positions]
            if self.sparse.sends_positions:
                made[Kind.POSITIONS] = self._coder.encode_positions(positions, part.size)
        made[Kind.HEADER], symbols = self._quantized(values, generator, key, part.index)
        if self.quantizer.symbol_bits:
            made[Kind.SYMBOLS] = self._coder.encode(symbols, self.quantizer)
        return made

    def _quantized(self, values: F32, generator: np.random.Generator, key: RoundKey, index: int) -> tuple[bytes, U8]:
        """Return the header and the symbols of a part's kept values, rotated where they are."""
        if not self.rotation:
            return self.quantizer.encode(values, generator)
        if not self._levels or not len(values):
            return self.quantizer.encode(self.rotation.forward(values, key, index), generator)
        # Blocks know nothing of each other: run by run there is never a rotated vector as long as the model.
        runs = [self.quantizer.encode(run, generator) for run in self.rotation.forward_runs(values, key, index)]
        if len(runs) == 1:
            return runs[0]
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
        with np.errstate(over="ignore", invalid="ignore"), self._blaming("decode", CodecError):
            for part in self.formats(space):
                target = result[part.start : part.start + part.size]
                if part.exact:
                    target[...] = np.frombuffer(reader.take(4 * part.size), "<f4")
                else:
                    target[...] = self._part(reader, part, key, rotated=rotated)
        reader.finish()
        return finite(result)

    def _part(self, reader: Reader, part: PartFormat, key: RoundKey, *, rotated: bool) -> F32:
        """Return the values of a part, zero where none was sent."""
        quantizer, coder, kept = self.quantizer, self._coder, part.kept
        positions: I64 | None = None
        header, symbols, values = b"", NO_SYMBOLS, None
        for field in part.fields:
            if field.kind is Kind.POSITIONS:
                positions = coder.decode_positions(reader, part.size, field.count)
            elif field.kind is Kind.HEADER:
                header = reader.take(field.count)
            elif coder.fixed_size and kept and (table := quantizer.table(header)) is not None:
                # A byte of symbols at a time: there is no array of symbols in between.
                bits = quantizer.symbol_bits
                values = look_up_packed(reader.take(packed_bytes(kept, bits)), kept, bits, table)
            else:
                symbols = coder.decode(reader, field.count, quantizer)
        numbers = self._levels.numbers(header) if self._levels else None
        if values is None:
            values = self._decoded(header, symbols, kept)
        if self.rotation and not rotated:
            values = self.rotation.backward(values, key, part.index, numbers)
        elif numbers is not None:
            blocks.multiply(values, numbers)
        if self.sparse is None:
            return values
        dense = np.zeros(part.size, np.float32)
        if positions is None:
            positions = self.sparse.select(dense, key.generator(f"sparse/{part.index}"))
        dense[positions] = values * self.sparse.factors(part.size)
        return dense

    def _decoded(self, header: bytes, symbols: U8, kept: int) -> F32:
        """Return what the quantizer makes of a part's symbols: whole numbers where blocks' numbers multiply them."""
        if self._levels:
            return self._levels.whole(symbols, kept)
        values = self.quantizer.decode(header, symbols, kept)
        if (shape := getattr(values, "shape", None)) != (kept,):
            made = f"an array of shape {shape}" if shape is not None else f"a {type(values).__name__}"
            place = place_of(self.quantizer.decode)
            raise CodecError(f"{self.quantizer}{place} decodes {kept} values to {made}, and not ({kept},)")
        return values

    def formats(self, space: Space) -> tuple[PartFormat, ...]:
        """Return what lies where in the payloads of a space."""
        parts, known = self._known_formats
        if parts != space.parts:
            known = tuple(formats(space.parts, self.sparse, self.quantizer, self._coder))
            self._known_formats = space.parts, known
        return known

    def theory_bytes(self, layout: Layout) -> float:
        """Return the size by formula: kept values × bits, headers, positions at their entropy; before `entropy`."""
        return sum(field.theory_bytes for field in self._fields(layout))

    def max_bytes(self, layout: Layout) -> int:
        """Return the most bytes that a valid payload can have."""
        return sum(field.most_bytes for field in self._fields(layout))

    def _fields(self, layout: Layout) -> Iterator[Field]:
        for part in self.formats(self.space(layout, RoundKey(0, 0))):
            yield from part.fields

    @contextlib.contextmanager
    def _blaming(self, doing: str, kind: type[FeatherfedError]) -> Iterator[None]:
        """Turn what a stage of a user's own raises into an error of ours that names their file and line."""
        try:
            yield
        except FeatherfedError:
            raise
        except (Exception, SystemExit) as error:
            place = where(error)
            if not place:
                raise
            raise kind(f"{self} cannot {doing} ({place}): {reason(error)}") from error

    def fold(
        self, layout: Layout, key: RoundKey | None, *, updates: int = 1, clip_norm: float = math.inf,
        threads: Threads = ALONE,
    ) -> Fold:  # fmt: skip
        """Return an empty sum with room for so many of a round's updates, each of an L2 norm of at most `clip_norm`.

        Without a key the updates may be of several rounds, which share no rotation: each is rotated back by itself.
        """
        return Fold(self, layout, key, updates=updates, clip_norm=clip_norm, threads=threads)


def _same(values: F32) -> F32:
    return values
