"""A weighted sum of float32 vectors that does not depend on the order in which they come, to the bit.

Floating-point addition is not associative; integer addition is. Each weighted value is rounded once to a multiple of
2⁻³⁰ and added as int64. The rounding error of a mean of n updates of weight w is at most 2⁻³¹/w a coordinate, below
float32's own for values that matter. |sum| stays below 2³² (checked before anything is added), or int64 would wrap;
each of n expected vectors has a share of 2³²/n, so that none can leave the others without room.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featherfed.codec import blocks
from featherfed.codec.space import F32
from featherfed.errors import CodecError

FRACTION_BITS = 30
LIMIT = float(1 << 32)
_HEADER = struct.Struct("<qqqd")
_ROUNDER = 1.5 * 2.0**52
"""Added to a float64 below 2⁵¹ it rounds to a whole number, to nearest even, that stands in the sum's low bits."""
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))


@dataclass(frozen=True, slots=True)
class Symbols:
    """Values that are not multiplied out: `levels[symbols]` times one of `numbers` for each block."""

    symbols: npt.NDArray[np.uint8]
    levels: F32
    numbers: F32

    @property
    def largest(self) -> float:
        """The largest magnitude that a value can have."""
        return float(np.abs(self.numbers).max(initial=0.0)) * float(np.abs(self.levels).max())


class ExactSum:
    """`size` coordinates in fixed point, with room for `updates` vectors; `count` of `weight` in all were added."""

    def __init__(self, size: int, updates: int = 1) -> None:
        self._sum = np.zeros(size, np.int64)
        self._share = LIMIT / updates
        self._bound = 0.0
        self.weight = 0
        self.count = 0

    def add(self, values: F32, weight: int) -> None:
        """Add weight × values; raises `CodecError` and changes nothing where the sum could overflow.

        >>> total = ExactSum(2)
        >>> total.add(np.array([1, 2], np.float32), 3)
        >>> total.add(np.array([5, 2], np.float32), 1)
        >>> total.mean()
        array([2., 2.], dtype=float32)
        """
        self.add_parts([values], weight)

    def add_parts(self, parts: Sequence[F32 | Symbols], weight: int) -> None:
        """Add weight × the vector whose runs are `parts`; raises `CodecError` and changes nothing as `add` does.

        Symbols are added as whole numbers from a table of a block's few levels: no value becomes a float.
        """
        largest = max((_largest(part) for part in parts), default=0.0)
        bound = self._bound + largest * weight
        if not (largest * weight < self._share and bound < LIMIT):
            raise CodecError(f"update with a value of {largest:g} and weight {weight} exceeds what a sum can hold")
        start = 0
        for part in parts:
            size = len(part.symbols) if isinstance(part, Symbols) else len(part)
            target = self._sum[start : start + size]
            if isinstance(part, Symbols):
                _add_symbols(target, part, weight)
            else:
                _add_values(target, part, weight, small=largest * weight < 1 << 20)
            start += size
        self._bound = bound
        self.weight += weight
        self.count += 1

    def merge(self, other: "ExactSum") -> None:
        """Add another sum: the same bits as if its vectors had been added here."""
        if self._bound + other._bound >= LIMIT:
            raise CodecError("two partial sums exceed what a sum can hold")
        self._sum += other._sum
        self._bound += other._bound
        self.weight += other.weight
        self.count += other.count

    def mean(self) -> F32:
        """Return the weighted mean, (size,) float32; zeros where nothing was added."""
        return (self._sum / (float(max(self.weight, 1)) * (1 << FRACTION_BITS))).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Return the sum for another process."""
        return _HEADER.pack(len(self._sum), self.weight, self.count, self._bound) + self._sum.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ExactSum":
        """Return the sum that `to_bytes` wrote, or raise `CodecError`."""
        if len(data) < _HEADER.size:
            raise CodecError(f"partial sum of {len(data)} bytes has no header")
        size, weight, count, bound = _HEADER.unpack_from(data)
        if len(data) != _HEADER.size + 8 * size or weight < 0 or count < 0 or not 0 <= bound < LIMIT:
            raise CodecError(f"partial sum of {len(data)} bytes does not hold {size} coordinates of weight {weight}")
        total = cls(size)
        total._sum = np.frombuffer(data, "<i8", offset=_HEADER.size).astype(np.int64)
        total.weight, total.count, total._bound = weight, count, bound
        return total


def partial_sum_bytes(size: int) -> int:
    """Return how many bytes `to_bytes` gives for so many coordinates."""
    return _HEADER.size + 8 * size


def _largest(part: F32 | Symbols) -> float:
    if isinstance(part, Symbols):
        return part.largest
    return float(max(part.max(initial=0.0), -part.min(initial=0.0)))


def _add_values(total: npt.NDArray[np.int64], values: F32, weight: int, *, small: bool) -> None:
    scale = float(weight * (1 << FRACTION_BITS))
    # In runs that stay in the cache: the vector itself passes through memory once.
    buffer = np.empty(min(blocks.BLOCK, len(values)), np.float64)
    for start in range(0, len(values), blocks.BLOCK):
        run = total[start : start + blocks.BLOCK]
        scaled = buffer[: len(run)]
        scaled[...] = values[start : start + blocks.BLOCK]
        scaled *= scale
        if small:
            # As np.rint and a cast, in half the time.
            scaled += _ROUNDER
            run += scaled.view(np.int64)
            run -= _ROUNDER_BITS
        else:
            run += np.rint(scaled, out=scaled).astype(np.int64)


def _add_symbols(total: npt.NDArray[np.int64], part: Symbols, weight: int) -> None:
    scale = float(weight * (1 << FRACTION_BITS))
    tables = np.rint(np.multiply.outer(part.numbers.astype(np.float64) * scale, part.levels)).astype(np.int64)
    buffer = np.empty(min(blocks.BLOCK, len(total)), np.int64)
    for start, table in zip(range(0, len(total), blocks.BLOCK), tables, strict=True):
        run = total[start : start + blocks.BLOCK]
        run += table.take(part.symbols[start : start + blocks.BLOCK], out=buffer[: len(run)], mode="clip")
