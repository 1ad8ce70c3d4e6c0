"""The coder of pipelines that name none: packed symbols, and positions in Golomb–Rice code."""

from typing import ClassVar

from featherfed.codec import golomb
from featherfed.codec.bits import pack, packed_bytes, unpack
from featherfed.codec.stage import I64, U8, Quantizer, Reader


class Packed:
    """Symbols of b bits in ⌈n·b/8⌉ bytes."""

    fixed_size: ClassVar[bool] = True

    def max_bytes(self, size: int, symbol_bits: int) -> int:
        """Return exactly what `encode` gives."""
        return packed_bytes(size, symbol_bits)

    def encode(self, symbols: U8, quantizer: Quantizer) -> bytes:
        """Return the packed symbols."""
        return pack(symbols, quantizer.symbol_bits)

    def decode(self, payload: Reader, size: int, quantizer: Quantizer) -> U8:
        """Return the symbols."""
        return unpack(payload.take(packed_bytes(size, quantizer.symbol_bits)), size, quantizer.symbol_bits)

    def max_positions_bytes(self, size: int, kept: int) -> int:
        """Return the most that Golomb–Rice code takes."""
        return golomb.max_bytes(size, kept)

    def encode_positions(self, positions: I64, size: int) -> bytes:
        """Return the positions in Golomb–Rice code."""
        return golomb.encode_positions(positions, size)

    def decode_positions(self, payload: Reader, size: int, kept: int) -> I64:
        """Return the positions."""
        return golomb.decode_positions(payload, size, kept)
