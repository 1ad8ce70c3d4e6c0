"""entropy: range coding of symbols by the `constriction` library, lossless.

The paper's min–max quantizer wastes its range: after a rotation its 2-bit symbols carry about 1.1 bits. The model is
the symbols' own histogram in one byte a level, so the stage needs to know nothing about who made them. Layout: a byte
that says how (0: packed as they are, 1: range coded), then for range coding one byte a level, the length of the code as
a base-128 number, and the code without its trailing zero bytes. Where that is no smaller, the symbols are packed.
"""

from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from featherfed.codec.bits import pack, packed_bytes, unpack
from featherfed.codec.stage import U8, Quantizer, Reader, Slot, Stage
from featherfed.errors import CodecError

Categorical = constriction.stream.model.Categorical
RangeEncoder, RangeDecoder = constriction.stream.queue.RangeEncoder, constriction.stream.queue.RangeDecoder
PACKED, CODED = b"\0", b"\1"
LENGTH_BYTES = 5


def _model(weights: U8) -> Any:
    shares = weights.astype(np.float64)
    return Categorical(shares / shares.sum(), perfect=False)


def _weights(symbols: U8, levels: int) -> U8:
    counts = np.bincount(symbols, minlength=levels)
    weights = np.rint(255 * counts / counts.max())
    return np.where(counts > 0, np.maximum(weights, 1), 0).astype(np.uint8)


def write_length(length: int) -> bytes:
    """Return a number as base-128 digits, lowest first, the highest bit of all but the last one set."""
    digits = []
    while length >= 128:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([*digits, length])


def read_length(payload: Reader) -> int:
    """Return the number that `write_length` wrote."""
    length = 0
    for place in range(LENGTH_BYTES):
        digit = payload.take(1)[0]
        length |= (digit & 127) << 7 * place
        if digit < 128:
            return length
    raise CodecError(f"length has more than {LENGTH_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Entropy(Stage):
    """Symbols at about their entropy; one byte more than packed where that does not pay."""

    name = "entropy"
    slot = Slot.CODER
    paper = "Martin 1979, Range encoding; Bamler 2022, arXiv 2201.01741"

    def max_bytes(self, size: int, symbol_bits: int) -> int:
        """Return one byte more than packed symbols take."""
        return 1 + packed_bytes(size, symbol_bits)

    def encode(self, symbols: U8, quantizer: Quantizer) -> bytes:
        """Return the symbols coded, or packed where that is smaller."""
        packed = packed_bytes(len(symbols), quantizer.symbol_bits)
        if packed <= quantizer.levels:
            return PACKED + pack(symbols, quantizer.symbol_bits)
        weights = _weights(symbols, quantizer.levels)
        encoder = RangeEncoder()
        # A model needs two symbols; where there is one, the histogram says it all.
        if np.count_nonzero(weights) > 1:
            encoder.encode(_compact(symbols, weights), _model(weights[weights > 0]))
        code = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        coded = CODED + weights.tobytes() + write_length(len(code)) + code
        return coded if len(coded) <= packed else PACKED + pack(symbols, quantizer.symbol_bits)

    def decode(self, payload: Reader, size: int, quantizer: Quantizer) -> U8:
        """Return the symbols."""
        how = payload.take(1)
        if how == PACKED:
            return unpack(payload.take(packed_bytes(size, quantizer.symbol_bits)), size, quantizer.symbol_bits)
        if how != CODED:
            raise CodecError(f"symbols are coded in way {how[0]}, known are 0 and 1")
        weights = np.frombuffer(payload.take(quantizer.levels), np.uint8)
        there = np.flatnonzero(weights).astype(np.uint8)
        code = payload.take(read_length(payload))
        if not len(there):
            raise CodecError("histogram of symbols is empty")
        if len(there) == 1:
            return np.full(size, there[0], np.uint8)
        words = np.frombuffer(code + bytes(-len(code) % 4), "<u4").astype(np.uint32)
        try:
            compact = RangeDecoder(words).decode(_model(weights[there]), size)
        except (AssertionError, ValueError) as error:
            raise CodecError(f"range code of {len(code)} bytes does not decode: {error}") from error
        symbols: U8 = there[compact]
        return symbols


def _compact(symbols: U8, weights: U8) -> npt.NDArray[np.int32]:
    """Return the symbols numbered by those that occur: the model knows no zero probability."""
    numbers = np.cumsum(weights > 0).astype(np.int32) - 1
    compact: npt.NDArray[np.int32] = numbers[symbols]
    return compact
