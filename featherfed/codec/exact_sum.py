"""A weighted sum of float32 vectors that does not depend on the order in which they come, to the bit.

Floating-point addition is not associative; integer addition is. Each weighted value is rounded once to a multiple of
2⁻³⁰ and added as int64. The rounding error of a mean of n updates of weight w is at most 2⁻³¹/w a coordinate, below
float32's own for values that matter. |sum| stays below 2³² (checked before anything is added), or int64 would wrap;
each of n expected vectors has a share of 2³²/n, so that none can leave the others without room.

Threads that work for one call add to coordinates of their own; calls take turns.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec import blocks, fast
from featherfed.codec.space import F32
from featherfed.codec.threads import ALONE, EACH, Threads
from featherfed.errors import CodecError

FRACTION_BITS = 30
LIMIT = float(1 << 32)
SMALL = float(1 << 20)
"""Below this a weighted value is rounded by an addition."""
SHORT = 8_192
"""Coordinates of which several vectors are summed before they meet the sum: more of them leave the cache."""
_HEADER = struct.Struct("<qqqd")
ROUNDER = 1.5 * 2.0**52
"""Added to a float64 below 2⁵¹ it rounds to a whole number, to nearest even, that stands in the sum's low bits."""
_ROUNDER_BITS = int(np.float64(ROUNDER).view(np.int64))


class ExactSum:
    """`size` coordinates in fixed point, with room for `updates` vectors; `count` of `weight` in all were added."""

    def __init__(self, size: int, updates: int = 1) -> None:
        self._sum = np.zeros(size, np.int64)
        self._rounders = 0  # in every coordinate: taken out where the sum is read, not once for each vector
        self._share = LIMIT / updates
        self._bound = 0.0
        self.weight = 0
        self.count = 0
        self._counting = Lock()
        self._adding = Lock()

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self._sum)

    def add(self, values: F32, weight: int, threads: Threads = ALONE) -> None:
        """Add weight × values; raises `CodecError` and changes nothing where the sum could overflow.

        >>> total = ExactSum(2)
        >>> total.add(np.array([1, 2], np.float32), 3)
        >>> total.add(np.array([5, 2], np.float32), 1)
        >>> total.mean()
        array([2., 2.], dtype=float32)
        """
        largest = float(max(values.max(initial=0.0), -values.min(initial=0.0)))
        small = largest * weight < SMALL
        with self._counting:
            bound = self._bound + largest * weight
            if not (largest * weight < self._share and bound < LIMIT):
                raise CodecError(f"update with a value of {largest:g} and weight {weight} exceeds what a sum can hold")
            self._rounders += small
            self._count(bound, weight)
        weights, kernels = np.array([weight]), fast.kernels()

        def take(starts: Iterator[int]) -> None:
            buffer = np.empty(0 if small and kernels else min(blocks.RUN, len(values)), np.float64)
            for start in starts:
                run = values[start : start + blocks.RUN]
                if small and kernels:
                    kernels.add(self._sum[start : start + len(run)], run, scaled_weights(weights)[0], ROUNDER)
                elif small:
                    self.add_run(start, run[None], weights, buffer)
                else:
                    scaled = np.multiply(run, float(weight << FRACTION_BITS), out=buffer[: len(run)], dtype=np.float64)
                    self._sum[start : start + len(run)] += np.rint(scaled, out=scaled).astype(np.int64)

        with self._adding:
            threads.share(range(0, len(values), blocks.RUN), take, most=len(values) // EACH)

    def admit(self, largest: float, weight: int) -> bool:
        """Count a vector of values up to `largest` if there is surely room for it: its runs must all be added then."""
        with self._counting:
            bound = self._bound + largest * weight
            if not (largest * weight < min(self._share, SMALL) and bound < LIMIT):
                return False
            self._rounders += 1
            self._count(bound, weight)
        return True

    @contextlib.contextmanager
    def adding(self) -> Iterator[npt.NDArray[np.int64]]:
        """Let vectors that were admitted be added, by `add_run` or by a kernel, to what this gives, (size,)."""
        with self._adding:
            yield self._sum

    def add_run(self, start: int, values: F32, weights: npt.NDArray[Any], scratch: npt.NDArray[np.float64]) -> None:
        """Add Σ weights · rows of `values`, (rows, run), to the coordinates from `start` on, each product rounded.

        While `adding`; `scratch` has room for all values.
        """
        rows, size = values.shape
        scaled = scratch[: rows * size].reshape(rows, size)
        scaled[...] = values
        scaled *= scaled_weights(weights)[:, None]
        # As np.rint and a cast, in half the time.
        scaled += ROUNDER
        whole = scaled.view(np.int64)
        if size <= SHORT:
            # Whole numbers, in any order: one call of numpy in place of one for each row.
            whole = whole.sum(axis=0, keepdims=True)
        for row in whole:
            self._sum[start : start + size] += row

    def _count(self, bound: float, weight: int) -> None:
        self._bound = bound
        self.weight += weight
        self.count += 1

    def _settled(self) -> npt.NDArray[np.int64]:
        """Return the sum without what rounded it."""
        # Whole numbers modulo 2⁶⁴: what wrapped on the way in wraps back.
        extra = self._rounders * _ROUNDER_BITS % (1 << 64)
        self._sum -= np.uint64(extra).astype(np.int64)
        self._rounders = 0
        return self._sum

    def merge(self, other: "ExactSum") -> None:
        """Add another sum: the same bits as if its vectors had been added here."""
        if self._bound + other._bound >= LIMIT:
            raise CodecError("two partial sums exceed what a sum can hold")
        self._sum += other._settled()
        self._bound += other._bound
        self.weight += other.weight
        self.count += other.count

    def disturb(self, draw: Callable[[int], npt.NDArray[np.int64]]) -> None:
        """Add whole multiples of 2⁻³⁰ to the coordinates: `draw` returns so many, each below 2⁶² in size."""
        total = self._settled()
        for start in range(0, len(total), blocks.RUN):
            run = total[start : start + blocks.RUN]
            run += draw(len(run))

    def mean(self, of: int = 0) -> F32:
        """Return the weighted mean, (size,) float32; zeros where nothing was added. `of`: divide by it in its place."""
        total, divisor = self._settled(), float(of or max(self.weight, 1)) * (1 << FRACTION_BITS)
        mean = np.empty(len(total), np.float32)
        for start in range(0, len(total), blocks.RUN):
            run = slice(start, start + blocks.RUN)
            mean[run] = total[run] / divisor
        return mean

    def to_bytes(self) -> bytes:
        """Return the sum for another process."""
        total = self._settled()
        return (
            _HEADER.pack(len(total), self.weight, self.count, self._bound) + total.astype("<i8", copy=False).tobytes()
        )

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


def scaled_weights(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return what values are multiplied with before they are rounded, (rows,)."""
    scaled: npt.NDArray[np.float64] = weights * float(1 << FRACTION_BITS)
    return scaled


def partial_sum_bytes(size: int) -> int:
    """Return how many bytes `to_bytes` gives for so many coordinates."""
    return _HEADER.size + 8 * size
