"""topk(f): the k = max(1, round(f·n)) values of largest magnitude (Aji and Heafield 2017; Sattler et al. 2019).

Positions travel as gaps in Golomb–Rice code: the low r bits of each gap as they are, the rest in unary. For a fraction
p of random positions a gap has entropy H(p)/p and takes r + 1/(1 − (1−p)^{2^r}) bits: within 2 % of it for p ≤ 1/8.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from featherfed.codec.bits import pack, unpack
from featherfed.codec.space import F32
from featherfed.codec.stage import Reader, Slot, Stage, check_fraction
from featherfed.errors import CodecError

I64 = npt.NDArray[np.int64]


def rice_parameter(size: int, kept: int) -> int:
    """Return the r that is best for `kept` random positions of `size`, which both ends know.

    >>> rice_parameter(400_000, 1000)
    8
    """
    p = kept / size
    if p >= 1:
        return 0
    return min(range(32), key=lambda r: r - 1 / math.expm1(2**r * math.log1p(-p)))


def encode_positions(positions: I64, size: int) -> bytes:
    """Return rising positions below `size` as low bits, then unary bits."""
    kept = len(positions)
    if kept == size:
        return b""
    low_bits = rice_parameter(size, kept)
    gaps = np.diff(positions, prepend=-1) - 1
    ones = np.cumsum((gaps >> low_bits) + 1) - 1
    unary = np.zeros(int(ones[-1]) + 1, np.uint8)
    unary[ones] = 1
    return pack_wide(gaps & ((1 << low_bits) - 1), low_bits) + np.packbits(unary).tobytes()


def decode_positions(payload: Reader, size: int, kept: int) -> I64:
    """Return `kept` rising positions below `size`, or raise `CodecError`."""
    if kept == size:
        return np.arange(size, dtype=np.int64)
    low_bits = rice_parameter(size, kept)
    low = unpack_wide(payload.take(-(-kept * low_bits // 8)), kept, low_bits)
    longest = -(-((size >> low_bits) + kept + 1) // 8)
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(payload.rest()[:longest], np.uint8)))[:kept]
    if len(ones) < kept:
        raise CodecError(f"{len(ones)} of {kept} positions are there")
    payload.take(int(ones[-1]) // 8 + 1)
    gaps = (np.diff(ones, prepend=-1) - 1 << low_bits) + low
    positions = np.cumsum(gaps + 1) - 1
    if positions[-1] >= size:
        raise CodecError(f"position {int(positions[-1])} is beyond the {size} values of its tensor")
    return positions


def pack_wide(numbers: I64, width: int) -> bytes:
    """Return numbers of `width` bits, up to 32, as bytes: whole low bytes first, then the bits above them."""
    whole = [(numbers >> 8 * i & 255).astype(np.uint8).tobytes() for i in range(width // 8)]
    # The rest of fewer than 8 bits a number packs as symbols do; both parts together fill whole bytes once.
    return b"".join(whole) + pack((numbers >> 8 * (width // 8)).astype(np.uint8), width % 8)


def unpack_wide(data: bytes, kept: int, width: int) -> I64:
    """Return `kept` numbers of `width` bits."""
    numbers = np.zeros(kept, np.int64)
    for i in range(width // 8):
        numbers |= np.frombuffer(data, np.uint8, kept, i * kept).astype(np.int64) << 8 * i
    high = unpack(data[width // 8 * kept :], kept, width % 8)
    return numbers | high.astype(np.int64) << 8 * (width // 8)


@dataclass(frozen=True, slots=True)
class TopK(Stage):
    """Sends `fraction` of the values with their positions."""

    fraction: Fraction

    name = "topk"
    slot = Slot.SPARSE
    paper = "Sattler et al. 2019, arXiv 1903.02891"
    unbiased = False
    leaves_zeros = True
    example = "1/20"

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    def kept(self, size: int) -> int:
        """Return how many of `size` values are sent."""
        return max(1, round(self.fraction * size)) if size else 0

    def positions_bits(self, size: int) -> float:
        """Return the entropy of that many random positions."""
        p = self.kept(size) / size if size else 1.0
        return 0.0 if p >= 1 else size * -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    def max_positions_bytes(self, size: int) -> int:
        """Return the size of the code when all gaps but one are shortest."""
        kept = self.kept(size)
        if kept == size:
            return 0
        low_bits = rice_parameter(size, kept)
        return -(-kept * low_bits // 8) + -(-((size >> low_bits) + kept + 1) // 8)

    def select(self, values: F32, generator: np.random.Generator) -> tuple[F32, bytes]:
        """Return the largest values in the order of their positions, and the positions."""
        kept = self.kept(len(values))
        if not kept:
            return values, b""
        chosen = np.argpartition(np.abs(values), len(values) - kept)[len(values) - kept :].astype(np.int64)
        chosen.sort()
        return values[chosen], encode_positions(chosen, len(values))

    def place(self, size: int, payload: Reader, generator: np.random.Generator) -> tuple[I64, F32]:
        """Return the positions that travelled; values count as they are."""
        kept = self.kept(size)
        return decode_positions(payload, size, kept), np.ones(kept, np.float32)
