"""stochastic(b): unbiased levels, dense where normal values are, in the spirit of QUIC-FL (Ben Basat et al. 2023).

A block is divided by its largest magnitude M. Levels t₀ < … < t_{2^b−1} lie in [−1, 1], ends included, and a value
between two of them becomes one or the other with a probability that makes E[x̂] = x for every single value, whatever
the rotation: so all phones may share one rotation, and the server inverts it once a round.

The variance of a value between levels that are Δ apart is Δ²/6 on average; minimising ∫ f Δ² at a fixed number of
levels gives Δ ∝ f^{−1/3}: for normal values, levels at equal quantiles of a normal with √3 times the deviation.
"""

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage, check_bits, finite

LARGEST = 3.9
"""The largest of a block of normal values, in deviations, as it is usually."""


@functools.cache
def levels_of(bits: int) -> F32:
    """Return the 2^b levels in [−1, 1], rising."""
    wide = NormalDist(0, math.sqrt(3) / LARGEST)
    low, count = wide.cdf(-1), 1 << bits
    return np.array([wide.inv_cdf(low + (1 - 2 * low) * i / (count - 1)) for i in range(count)], np.float32)


@dataclass(frozen=True, slots=True)
class Stochastic(Stage):
    """Header: M of each block as float32; symbols of `bits` bits."""

    bits: int

    name = "stochastic"
    slot = Slot.QUANTIZER
    paper = "Ben Basat et al. 2023, arXiv 2205.13341"
    parameter = "bits a symbol, 1 to 8"
    example = "2"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 1, 8)

    @property
    def symbol_bits(self) -> int:
        """Bits of a symbol."""
        return self.bits

    @property
    def levels(self) -> int:
        """2^b levels."""
        return 1 << self.bits

    def header_bytes(self, size: int) -> int:
        """Return one float32 a block."""
        return 4 * blocks.count(size)

    @property
    def block_levels(self) -> F32:
        """The levels that a block's number multiplies."""
        return levels_of(self.bits)

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the blocks' magnitudes and the levels."""
        largest = np.empty(blocks.count(len(values)), "<f4")
        symbols = np.empty(len(values), np.uint8)
        for place, numbers in blocks.runs(len(values)):
            largest[numbers], symbols[place] = self._encode_run(values[place], generator)
        return largest.tobytes(), symbols

    def _encode_run(self, values: F32, generator: np.random.Generator) -> tuple[F32, U8]:
        table = self.block_levels
        unit = np.abs(values)
        largest = blocks.reduce(np.maximum, unit)
        np.copyto(unit, values)
        tiny = np.finfo(np.float32).tiny
        blocks.multiply(unit, np.divide(1, largest, out=np.zeros_like(largest), where=largest > tiny))
        below = np.zeros(len(values), np.uint8)
        for level in table[1:-1]:
            below += unit >= level
        # How far a value lies between its two levels is its chance of the one above.
        unit -= table.take(below)
        unit /= np.diff(table).take(below)
        below += generator.random(len(values), np.float32) < unit
        return largest, below

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return the levels' values."""
        largest = finite(np.frombuffer(header, "<f4").astype(np.float32))
        return blocks.scaled(self.block_levels, symbols, largest)
