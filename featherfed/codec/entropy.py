"""entropy: range coding of symbols and gaps by the `constriction` library, lossless.

The paper's min–max quantizer wastes its range: after a rotation its 2-bit symbols carry about 1.1 bits. The model is
the symbols' own histogram in one byte a level, so the stage needs to know nothing about who made them. Layout: a byte
that says how (0: packed as they are, 1: range coded), then for range coding one byte a level, the length of the code as
a base-128 number, and the code without its trailing zero bytes. Where that is no smaller, the symbols are packed.

The largest values of a real update lie in clusters (a pixel that is never black, a kernel that learns), so that their
gaps g carry a fifth to a half less than those of random positions. g + 1 = 2^e + m: the classes e are coded with their
own histogram, the m of each class, from the lowest class on, as uniform below 2^e. Layout: a byte that says how
(0: Golomb–Rice, as without this stage; 1: range coded), the number of classes, one byte a class, length and code as
above. Where that is no smaller, positions are in Golomb–Rice code.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import constriction
import numpy as np
import numpy.typing as npt

from featherfed.codec import blocks, golomb
from featherfed.codec.bits import pack, packed_bytes, unpack
from featherfed.codec.registry import stage
from featherfed.codec.stage import I64, U8, Quantizer, Reader, Slot, Stage, Trait
from featherfed.errors import CodecError

Categorical, Uniform = constriction.stream.model.Categorical, constriction.stream.model.Uniform
RangeEncoder, RangeDecoder = constriction.stream.queue.RangeEncoder, constriction.stream.queue.RangeDecoder
PLAIN, CODED = b"\0", b"\1"
MOST_VALUES = 1 << 24
"""A uniform model has at most so many values; gaps in larger tensors are in Golomb–Rice code."""
LENGTH_BYTES = 5


def model_of(weights: U8) -> Any:
    """Return the model of two or more symbols whose shares are as these weights, none of which is zero."""
    # Not divided by their sum: what the model adds up are whole numbers, and no rounding can differ.
    return Categorical(weights.astype(np.float64), perfect=False)


def _weights(symbols: npt.NDArray[np.integer], levels: int) -> U8:
    # In runs, since numpy makes numbers of eight bytes of them.
    counts = np.zeros(levels, np.int64)
    for place, _ in blocks.runs(len(symbols)):
        counts += np.bincount(symbols[place], minlength=levels)
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


def _code(encoder: Any) -> bytes:
    code: bytes = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    return write_length(len(code)) + code


def _decoder(payload: Reader) -> Any:
    code = payload.take(read_length(payload))
    return RangeDecoder(np.frombuffer(code + bytes(-len(code) % 4), "<u4").astype(np.uint32))


def _encode_histogram(encoder: Any, symbols: npt.NDArray[np.integer], weights: U8) -> None:
    # A model needs two symbols; where there is one, the histogram says it all.
    if np.count_nonzero(weights) > 1:
        # Numbered by those that occur: a model knows no zero probability.
        numbers = np.cumsum(weights > 0).astype(np.int32) - 1
        coded = np.empty(len(symbols), np.int32)
        for place, _ in blocks.runs(len(symbols)):
            numbers.take(symbols[place], out=coded[place], mode="clip")
        encoder.encode(coded, model_of(weights[weights > 0]))


def _decode_histogram(decoder: Any, size: int, weights: U8) -> U8:
    there = np.flatnonzero(weights).astype(np.uint8)
    if not len(there):
        raise CodecError("histogram of symbols is empty")
    if len(there) == 1:
        return np.full(size, there[0], np.uint8)
    return there.take(_decode(decoder, model_of(weights[there]), size))


def _decode(decoder: Any, model: Any, size: int) -> npt.NDArray[np.int32]:
    try:
        decoded: npt.NDArray[np.int32] = decoder.decode(model, size)
    except (AssertionError, ValueError) as error:
        raise CodecError(f"range code does not decode: {error}") from error
    return decoded


@stage("entropy")
@dataclass(frozen=True, slots=True)
class Entropy(Stage):
    """Symbols and gaps at about their entropy; one byte more than without it where that does not pay."""

    slot = Slot.CODER
    paper = "Martin 1979, Range encoding; Bamler 2022, arXiv 2201.01741"
    offers = frozenset({Trait.VARYING_LENGTH})
    fixed_size: ClassVar[bool] = False

    def max_bytes(self, size: int, symbol_bits: int) -> int:
        """Return one byte more than packed symbols take."""
        return 1 + packed_bytes(size, symbol_bits)

    def encode(self, symbols: U8, quantizer: Quantizer) -> bytes:
        """Return the symbols coded, or packed where that is smaller."""
        packed = packed_bytes(len(symbols), quantizer.symbol_bits)
        if packed <= quantizer.levels:
            return PLAIN + pack(symbols, quantizer.symbol_bits)
        weights = _weights(symbols, quantizer.levels)
        encoder = RangeEncoder()
        _encode_histogram(encoder, symbols, weights)
        coded = CODED + weights.tobytes() + _code(encoder)
        return coded if len(coded) <= packed else PLAIN + pack(symbols, quantizer.symbol_bits)

    def decode(self, payload: Reader, size: int, quantizer: Quantizer) -> U8:
        """Return the symbols."""
        if _is_plain(payload, "symbols"):
            return unpack(payload.take(packed_bytes(size, quantizer.symbol_bits)), size, quantizer.symbol_bits)
        weights = np.frombuffer(payload.take(quantizer.levels), np.uint8)
        return _decode_histogram(_decoder(payload), size, weights)

    def max_positions_bytes(self, size: int, kept: int) -> int:
        """Return one byte more than Golomb–Rice code takes."""
        return 1 + golomb.max_bytes(size, kept)

    def encode_positions(self, positions: I64, size: int) -> bytes:
        """Return the gaps coded, or in Golomb–Rice code where that is smaller."""
        plain = PLAIN + golomb.encode_positions(positions, size)
        if not 0 < len(positions) < size < MOST_VALUES:
            return plain
        numbers = golomb.gaps_of(positions) + 1
        classes = np.frexp(numbers.astype(np.float64))[1] - 1
        weights = _weights(classes, int(classes.max()) + 1)
        encoder = RangeEncoder()
        _encode_histogram(encoder, classes, weights)
        for e in range(1, len(weights)):
            if weights[e]:
                encoder.encode((numbers[classes == e] - (1 << e)).astype(np.int32), Uniform(1 << e))
        coded = CODED + bytes([len(weights)]) + weights.tobytes() + _code(encoder)
        return coded if len(coded) < len(plain) else plain

    def decode_positions(self, payload: Reader, size: int, kept: int) -> I64:
        """Return the positions."""
        if _is_plain(payload, "positions"):
            return golomb.decode_positions(payload, size, kept)
        count = payload.take(1)[0]
        if not (count <= size.bit_length() and size < MOST_VALUES):
            raise CodecError(f"{count} classes of gaps in a tensor of {size} values")
        weights = np.frombuffer(payload.take(count), np.uint8)
        decoder = _decoder(payload)
        classes = _decode_histogram(decoder, kept, weights)
        numbers = np.ones(kept, np.int64)
        for e in range(1, count):
            mine = np.flatnonzero(classes == e)
            if len(mine):
                numbers[mine] = _decode(decoder, Uniform(1 << e), len(mine)).astype(np.int64) + (1 << e)
        return golomb.from_gaps(numbers - 1, size)


def _is_plain(payload: Reader, what: str) -> bool:
    how = payload.take(1)
    if how not in (PLAIN, CODED):
        raise CodecError(f"{what} are coded in way {how[0]}, known are 0 and 1")
    return how == PLAIN
