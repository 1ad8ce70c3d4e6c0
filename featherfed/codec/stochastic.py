"""stochastic(b): unbiased levels, dense where normal values are, in the spirit of QUIC-FL (Ben Basat et al. 2023).

A block is divided by its largest magnitude M. Levels t₀ < … < t_{2^b−1} lie in [−1, 1], ends included, and a value
between two of them becomes one or the other with a probability that makes E[x̂] = x for every single value, whatever
the rotation: so all phones may share one rotation, and the server inverts it once a round.

The variance of a value between levels that are Δ apart is Δ²/6 on average; minimising ∫ f Δ² at a fixed number of
levels gives Δ ∝ f^{−1/3}: for normal values, levels at equal quantiles of a normal with √3 times the deviation. They
are rounded to whole numbers of 1/2048 here, and any levels are unbiased.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.levels import Levels, both_signs
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Trait, check_bits
from featherfed.randomness import uniform

UNIT = 2048
"""Levels are whole numbers of M/2048, but for one bit, which is ±M."""
# fmt: off
POSITIVE = {
    1: (1,),
    2: (382, 2048),
    3: (160, 501, 937, 2048),
    4: (74, 225, 382, 551, 742, 973, 1295, 2048),
    5: (36, 108, 181, 254, 330, 408, 489, 574, 665, 762, 870, 991, 1132, 1309, 1555, 2048),
    6: (
        18, 53, 88, 124, 160, 196, 232, 269, 306, 343, 382, 421, 460, 501, 542, 585, 629, 675, 722, 772, 824,
        879, 937, 999, 1066, 1140, 1222, 1315, 1425, 1560, 1743, 2048,
    ),
    7: (
        9, 26, 44, 61, 79, 97, 114, 132, 150, 167, 185, 203, 221, 239, 257, 276, 294, 313, 331, 350, 369, 388,
        407, 427, 446, 466, 486, 507, 527, 548, 569, 591, 613, 635, 657, 680, 704, 727, 752, 777, 802, 828, 855,
        883, 912, 941, 971, 1003, 1036, 1070, 1106, 1143, 1183, 1225, 1270, 1318, 1370, 1428, 1491, 1563, 1645,
        1745, 1871, 2048,
    ),
    8: (
        4, 13, 22, 31, 39, 48, 57, 65, 74, 83, 92, 101, 109, 118, 127, 136, 145, 153, 162, 171, 180, 189, 198,
        207, 216, 225, 234, 243, 252, 261, 270, 279, 288, 297, 307, 316, 325, 335, 344, 353, 363, 372, 382, 391,
        401, 410, 420, 430, 440, 449, 459, 469, 479, 489, 499, 510, 520, 530, 540, 551, 561, 572, 583, 593, 604,
        615, 626, 637, 649, 660, 671, 683, 694, 706, 718, 730, 742, 754, 767, 779, 792, 805, 818, 831, 844, 858,
        871, 885, 899, 914, 928, 943, 958, 973, 989, 1005, 1021, 1038, 1055, 1072, 1090, 1108, 1126, 1145, 1165,
        1185, 1206, 1227, 1249, 1272, 1295, 1320, 1345, 1372, 1400, 1429, 1460, 1492, 1527, 1564, 1603, 1647,
        1694, 1746, 1804, 1871, 1950, 2048,
    ),
}
# fmt: on
"""The positive levels; tests/codec/test_levels.py derives them, with M = 3.9 deviations, as it usually is."""


@stage("stochastic")
@dataclass(frozen=True, slots=True)
class Stochastic(Levels):
    """Header: M/2048 of each block as float32, M for one bit; symbols of `bits` bits."""

    bits: int

    slot = Slot.QUANTIZER
    paper = "Ben Basat et al. 2023, arXiv 2205.13341"
    needs: ClassVar[Mapping[Trait, str]] = {Trait.NORMAL: "its levels fit normal values"}
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

    @property
    def block_levels(self) -> F32:
        """The levels that a block's number multiplies."""
        return both_signs(POSITIVE[self.bits])

    @property
    def _unit(self) -> np.float32:
        return np.float32(1 / self.block_levels[-1])

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the blocks' magnitudes and the levels."""
        table = self.block_levels * self._unit
        unit = np.abs(values)
        largest = blocks.largest(unit)
        np.copyto(unit, values)
        blocks.multiply(unit, blocks.inverse(largest))
        below, above = np.zeros(len(values), np.uint8), np.empty(len(values), np.bool_)
        for level in table[1:-1]:
            below += np.greater_equal(unit, level, out=above).view(np.uint8)
        # How far a value lies between its two levels is its chance of the one above.
        one_step = len(table) == 2
        unit -= table[0] if one_step else table.take(below)
        unit /= table[1] - table[0] if one_step else np.diff(table).take(below)
        below += np.less(uniform(generator, len(values)), unit, out=above).view(np.uint8)
        largest *= self._unit
        return largest.astype("<f4", copy=False).tobytes(), below
