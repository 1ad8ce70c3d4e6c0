"""float32, float16 and bfloat16: numbers as they are, or rounded to nearest even. The baselines."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage, finite

NO_SYMBOLS = np.zeros(0, np.uint8)


@stage("float32")
@dataclass(frozen=True, slots=True)
class Float32(Stage):
    """Four bytes a value, little endian.

    >>> Float32().encode(np.array([1.0], np.float32), np.random.default_rng())[0].hex()
    '0000803f'
    """

    slot = Slot.QUANTIZER
    draws = False
    paper = "IEEE 754"
    symbol_bits: ClassVar[int] = 0
    levels: ClassVar[int] = 0

    def header_bytes(self, size: int) -> int:
        """Return four bytes a value."""
        return 4 * size

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the values' bytes; there are no symbols."""
        return values.astype("<f4", copy=False).tobytes(), NO_SYMBOLS

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return the values; NaN and infinity raise `CodecError`."""
        return finite(np.frombuffer(header, "<f4").astype(np.float32))


@stage("float16")
@dataclass(frozen=True, slots=True)
class Float16(Stage):
    """Two bytes a value; what exceeds ±65504 becomes that.

    >>> Float16().encode(np.array([1.0], np.float32), np.random.default_rng())[0].hex()
    '003c'
    """

    slot = Slot.QUANTIZER
    draws = False
    paper = "IEEE 754"
    unbiased = False
    symbol_bits: ClassVar[int] = 0
    levels: ClassVar[int] = 0

    def header_bytes(self, size: int) -> int:
        """Return two bytes a value."""
        return 2 * size

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the rounded values' bytes."""
        return np.clip(values, -65504, 65504).astype("<f2").tobytes(), NO_SYMBOLS

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return the values; NaN and infinity raise `CodecError`."""
        return finite(np.frombuffer(header, "<f2").astype(np.float32))


@stage("bfloat16")
@dataclass(frozen=True, slots=True)
class BFloat16(Stage):
    """The upper half of a float32, rounded to nearest even: its range with 8 bits of precision.

    >>> BFloat16().encode(np.array([1.0], np.float32), np.random.default_rng())[0].hex()
    '803f'
    """

    slot = Slot.QUANTIZER
    draws = False
    paper = "Intel 2018, BFLOAT16 hardware numerics definition"
    unbiased = False
    symbol_bits: ClassVar[int] = 0
    levels: ClassVar[int] = 0

    def header_bytes(self, size: int) -> int:
        """Return two bytes a value."""
        return 2 * size

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the rounded values' bytes."""
        upper = np.empty(len(values), "<u2")
        for place, _ in blocks.runs(len(values)):
            bits = np.ascontiguousarray(values[place]).view(np.uint32)
            rounded = bits + 0x7FFF + ((bits >> 16) & 1)
            # The largest float32 would round to infinity: it stays the largest bfloat16.
            overflow = (rounded & 0x7F800000) == 0x7F800000
            upper[place] = np.where(overflow, (bits & 0x80000000) | 0x7F7F0000, rounded) >> 16
        return upper.tobytes(), NO_SYMBOLS

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return the values; NaN and infinity raise `CodecError`."""
        bits = np.frombuffer(header, "<u2").astype(np.uint32) << 16
        return finite(bits.view(np.float32))
