"""qsgd(b): sign and stochastic magnitude against the norm (Alistarh et al. 2017, arXiv 1610.02132).

With s = 2^{b−1} − 1 steps, x̂ = ‖x‖ · sign(x) · ξ/s, where ξ is s|x|/‖x‖ rounded up or down at random so that E[ξ] is
s|x|/‖x‖. One bit of each symbol is the sign.
"""

import math
from dataclasses import dataclass

import numpy as np

from featherfed.codec import blocks, sums
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage, check_bits, finite
from featherfed.randomness import uniform


@stage("qsgd")
@dataclass(frozen=True, slots=True)
class Qsgd(Stage):
    """Header: the norm as float32; symbols of `bits` bits, the highest is the sign."""

    bits: int

    slot = Slot.QUANTIZER
    paper = "Alistarh et al. 2017, arXiv 1610.02132"
    parameter = "bits a symbol with its sign, 2 to 8"
    example = "4"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 2, 8)

    @property
    def symbol_bits(self) -> int:
        """Bits of a symbol."""
        return self.bits

    @property
    def levels(self) -> int:
        """All patterns of its bits."""
        return 1 << self.bits

    @property
    def _steps(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def header_bytes(self, size: int) -> int:
        """Return one float32."""
        return 4 if size else 0

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the norm, and sign with magnitude."""
        if not len(values):
            return b"", values.astype(np.uint8)
        # In float64, where no square of a float32 overflows, or becomes zero unless the value is.
        norm = np.float32(min(math.sqrt(sums.product(values, values)), float(np.finfo(np.float32).max)))
        if norm < np.finfo(np.float32).tiny:
            return np.zeros(1, "<f4").tobytes(), np.zeros(len(values), np.uint8)
        steps = np.float32(self._steps)
        symbols = np.empty(len(values), np.uint8)
        for place, _ in blocks.runs(len(values)):
            run = values[place]
            magnitude = np.abs(run)
            magnitude /= norm
            magnitude *= steps
            magnitude += uniform(generator, len(run))
            symbols[place] = np.minimum(magnitude, steps, out=magnitude)
            symbols[place] |= np.signbit(run).astype(np.uint8) << (self.bits - 1)
        return np.array([norm], "<f4").tobytes(), symbols

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return norm · sign · magnitude."""
        return blocks.look_up(self.table(header), symbols) if size else np.zeros(0, np.float32)

    def table(self, header: bytes) -> F32:
        """Return the steps' values, and behind them the negative ones."""
        norm = finite(np.frombuffer(header, "<f4"))[0]
        half = np.arange(self._steps + 1, dtype=np.float32) / np.float32(self._steps)
        table: F32 = (np.concatenate([half, -half]) * norm).astype(np.float32)
        return table
