"""Rising positions as gaps in Golomb–Rice code: the low r bits of each gap as they are, the rest in unary.

For a fraction p of random positions a gap has entropy H(p)/p and takes r + 1/(1 − (1−p)^{2^r}) bits: within 1 % of it
for p ≤ 1/8 with the best r. Positions of a real update lie in clusters, whose best r is another: the sender tries all.

Layout: r in one byte; the low r bits of all gaps, ⌈k·r/8⌉ bytes (`pack_wide`); each gap's rest as so many zero bits
and a one, highest bit of a byte first. Nothing where every value is sent.
"""

import numpy as np
import numpy.typing as npt

from featherfed.codec.bits import pack, unpack
from featherfed.codec.stage import I64, Reader
from featherfed.errors import CodecError

MOST_LOW_BITS = 31


def gaps_of(positions: I64) -> I64:
    """Return how many positions lie between each and the one before.

    >>> gaps_of(np.array([2, 3, 7]))
    array([2, 0, 3])
    """
    gaps: I64 = np.diff(positions, prepend=-1) - 1
    return gaps


def from_gaps(gaps: I64, size: int) -> I64:
    """Return the positions, or raise `CodecError` where one is beyond `size`."""
    positions: I64 = np.cumsum(gaps + 1) - 1
    # Rising as long as the last one is no wrapped sum: each gap is below 2³², and there are fewer than 2³¹.
    if positions[-1] >= size:
        raise CodecError(f"position {int(positions[-1])} is beyond the {size} values of its tensor")
    return positions


def encode_positions(positions: I64, size: int) -> bytes:
    """Return `positions`, rising and below `size`, with the r that is best for them."""
    kept = len(positions)
    if kept == size:
        return b""
    gaps = gaps_of(positions)
    widths = range(min(size.bit_length(), MOST_LOW_BITS) + 1)
    low_bits = min(widths, key=lambda r: _bytes(kept, r, kept + int((gaps >> r).sum())))
    ones = np.cumsum((gaps >> low_bits) + 1) - 1
    unary = np.zeros(int(ones[-1]) + 1, np.uint8)
    unary[ones] = 1
    return bytes([low_bits]) + pack_wide(gaps & ((1 << low_bits) - 1), low_bits) + np.packbits(unary).tobytes()


def decode_positions(payload: Reader, size: int, kept: int) -> I64:
    """Return `kept` rising positions below `size`, or raise `CodecError`."""
    if kept == size:
        return np.arange(size, dtype=np.int64)
    low_bits = payload.take(1)[0]
    if low_bits > MOST_LOW_BITS:
        raise CodecError(f"gaps with {low_bits} low bits, at most {MOST_LOW_BITS} are known")
    low = unpack_wide(payload.take(-(-kept * low_bits // 8)), kept, low_bits)
    longest = -(-((size >> low_bits) + kept) // 8)
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(payload.peek(longest), np.uint8)))[:kept]
    if len(ones) < kept:
        raise CodecError(f"{len(ones)} of {kept} positions are there")
    payload.take(int(ones[-1]) // 8 + 1)
    return from_gaps((gaps_of(ones) << low_bits) + low, size)


def max_bytes(size: int, kept: int) -> int:
    """Return the most bytes that `encode_positions` gives: what one low width costs when all gaps but one are zero."""
    if kept == size:
        return 0
    return 1 + min(_bytes(kept, r, kept + (size >> r)) for r in range(MOST_LOW_BITS + 1))


def _bytes(kept: int, low_bits: int, unary_bits: int) -> int:
    return -(-kept * low_bits // 8) + -(-unary_bits // 8)


def pack_wide(numbers: I64, width: int) -> bytes:
    """Return numbers of `width` bits, up to 32, as bytes: whole low bytes first, then the bits above them."""
    whole = [(numbers >> 8 * i & 255).astype(np.uint8).tobytes() for i in range(width // 8)]
    # The rest of fewer than 8 bits a number packs as symbols do; both parts together fill whole bytes once.
    return b"".join(whole) + pack((numbers >> 8 * (width // 8)).astype(np.uint8), width % 8)


def unpack_wide(data: bytes, kept: int, width: int) -> I64:
    """Return `kept` numbers of `width` bits."""
    numbers: npt.NDArray[np.int64] = np.zeros(kept, np.int64)
    for i in range(width // 8):
        numbers |= np.frombuffer(data, np.uint8, kept, i * kept).astype(np.int64) << 8 * i
    high = unpack(data[width // 8 * kept :], kept, width % 8)
    return numbers | high.astype(np.int64) << 8 * (width // 8)
