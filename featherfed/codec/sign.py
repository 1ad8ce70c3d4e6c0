"""sign: one bit and the mean magnitude (Seide et al. 2014; Karimireddy et al. 2019 show why it needs feedback).

x̂ = (‖x‖₁ / n) sign(x). It is biased: written after `feedback`, which sends later what a sign leaves out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks, sums
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage, Trait, finite


@stage("sign")
@dataclass(frozen=True, slots=True)
class Sign(Stage):
    """Header: the mean magnitude as float32; symbols of one bit.

    >>> header, symbols = Sign().encode(np.array([-1, 3], np.float32), np.random.default_rng())
    >>> Sign().decode(header, symbols, 2)
    array([-2.,  2.], dtype=float32)
    """

    slot = Slot.QUANTIZER
    draws = False
    paper = "Karimireddy et al. 2019, arXiv 1901.09847"
    unbiased = False
    symbol_bits: ClassVar[int] = 1
    levels: ClassVar[int] = 2

    def header_bytes(self, size: int) -> int:
        """Return one float32."""
        return 4 if size else 0

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the mean magnitude and the signs."""
        if not len(values):
            return b"", values.astype(np.uint8)
        mean = sums.magnitude(values) / len(values)
        return np.array([mean], "<f4").tobytes(), (values >= 0).view(np.uint8)

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return ± the mean magnitude."""
        return blocks.look_up(self.table(header), symbols) if size else np.zeros(0, np.float32)

    def table(self, header: bytes) -> F32:
        """Return ± the mean magnitude."""
        mean = finite(np.frombuffer(header, "<f4"))[0]
        return np.array([-mean, mean], np.float32)


@stage("ternary")
@dataclass(frozen=True, slots=True)
class Ternary(Sign):
    """After `topk`: each kept value becomes ±μ, the rest zero (Sattler et al. 2019, arXiv 1903.02891)."""

    paper = "Sattler et al. 2019, arXiv 1903.02891"
    needs: ClassVar[Mapping[Trait, str]] = {Trait.LARGEST: "it sends one magnitude for values that are all large"}
