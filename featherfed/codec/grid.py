"""grid(r): whole multiples of a public step, r bits each, whose sum may wrap: what can be added under a mask.

A server that shall learn sums alone adds symbols and not values, so a symbol's meaning must be the same for all phones
of a round: no scale, no rotation and no choice of coordinates of a phone's own. The server announces a step Δ for each
block of coordinates (`steps`), and a phone sends of a value x

    q = ⌊x/Δ + u + ½⌋ mod 2^r,    u in [−½, ½), from a generator that both ends have (subtractive dither)

Σq − Σu, brought into half a modulus around zero, is Σx/Δ and an error that is uniform in ±½ for each phone and does not
depend on x (Schuchman 1964): unbiased, Δ²/12 a phone, half of what stochastic rounding costs. No value is clipped, and
no modulus has room for n(2^b − 1) + 1 levels: it has for the spread of the sum, and wraps where that is too large,
which is the only bias (the modular sums of Kairouz et al. 2021). One step more in r halves Δ.

The stage itself is only the number of bits: `summable` encodes with a round's steps, `summed` decodes a sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np

from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage, Trait, check_bits
from featherfed.errors import SpecError

LEAST_BITS, MOST_BITS = 2, 16


@stage("grid")
@dataclass(frozen=True, slots=True)
class Grid(Stage):
    """Whole steps modulo 2^bits, of steps that the server announces; no header."""

    bits: int

    slot = Slot.QUANTIZER
    summed = True
    paper = "Kairouz et al. 2021, arXiv 2102.06387"
    needs: ClassVar[Mapping[Trait, str]] = {
        Trait.WHOLLY_CODED: "a tensor that travels as float32 cannot be summed; write exact(0), as secure-4bit does",
        Trait.EVEN: "one step is for 8192 coordinates, which must be about equally large; see secure-4bit",
    }
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.OWN_ROTATION: "what is summed must be rotated alike; use rotate_shared, as secure-4bit does",
        Trait.LARGEST: "phones would send other coordinates each; use subsample, or the preset secure-small",
        Trait.VARYING_LENGTH: "a code cannot be summed, and masked symbols are all equally frequent; leave it out, as"
        " secure-small and secure-4bit do",
    }
    phone_only = "it is for sums of many phones"
    parameter = "bits a coordinate, 2 to 16"
    example = "4"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, LEAST_BITS, MOST_BITS)

    @property
    def symbol_bits(self) -> int:
        """Bits of a symbol."""
        return self.bits

    @property
    def levels(self) -> int:
        """2^r symbols."""
        return 1 << self.bits

    def header_bytes(self, size: int) -> int:
        """Return 0: steps are the server's."""
        return 0

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Raise `SpecError`: it takes a round's steps, and a server that sums."""
        self._alone()

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Raise `SpecError`: only a sum is decoded."""
        self._alone()

    def _alone(self) -> NoReturn:
        raise SpecError(f"{self} is for sums of many phones, with steps that a server announces")
