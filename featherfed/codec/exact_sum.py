"""A weighted sum of float32 vectors that does not depend on the order in which they come, to the bit.

Floating-point addition is not associative; integer addition is. Each weighted value is rounded once to a multiple of
2⁻³⁰ and added as int64. The rounding error of a mean of n updates of weight w is at most 2⁻³¹/w a coordinate, below
float32's own for values that matter. |sum| stays below 2³² (checked before anything is added), or int64 would wrap;
each of n expected vectors has a share of 2³²/n, so that none can leave the others without room.
"""

import struct

import numpy as np

from featherfed.codec.space import F32
from featherfed.errors import CodecError

FRACTION_BITS = 30
LIMIT = float(1 << 32)
_HEADER = struct.Struct("<qqqd")
_RUN = 1 << 14


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
        largest = float(max(values.max(initial=0.0), -values.min(initial=0.0)))
        bound = self._bound + largest * weight
        if not (largest * weight < self._share and bound < LIMIT):
            raise CodecError(f"update with a value of {largest:g} and weight {weight} exceeds what a sum can hold")
        scale = np.float64(weight * (1 << FRACTION_BITS))
        # In runs that stay in the cache: the vector itself passes through memory once.
        scaled = np.empty(min(_RUN, len(values)), np.float64)
        for start in range(0, len(values), _RUN):
            run = values[start : start + _RUN]
            part = scaled[: len(run)]
            np.multiply(run, scale, out=part)
            np.rint(part, out=part)
            self._sum[start : start + _RUN] += part.astype(np.int64)
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
