"""eden(b): Lloyd–Max levels for the normal distribution and a scale that makes it unbiased (Vargaftik et al. 2022).

After a random rotation a block y of n values is close to normal with σ = ‖y‖/√n. With q the level of y/σ nearest to it,

    ŷ = S q,    S = ‖y‖² / ⟨y, q⟩

⟨y, ŷ⟩ = ‖y‖² exactly, and over uniformly random rotations the rest of ŷ is as often on one side as on the other, so
that E[x̂] = x. With D the distortion of the levels, vNMSE = D / (1 − D): 0.571, 0.133, 0.0358, 0.00959 for b = 1 … 4.

Whatever number all levels are multiplied with, S takes it back. So q here are whole numbers: the levels that minimise
the distortion, in units of σ/512, rounded, which costs less than 10⁻⁶ of it; and ±1 for one bit.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks, fast, sums
from featherfed.codec.levels import Levels, both_signs
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Trait, check_bits

UNIT = 512
"""Levels are whole numbers of σ/512."""
POSITIVE = {
    1: (1,),
    2: (232, 773),
    3: (125, 387, 688, 1102),
    4: (66, 199, 336, 482, 643, 828, 1059, 1399),
}
"""The positive levels; tests/codec/test_levels.py derives them by Lloyd's iteration."""


@stage("eden")
@dataclass(frozen=True, slots=True)
class Eden(Levels):
    """Header: S of each block as float32; symbols of `bits` bits."""

    bits: int

    slot = Slot.QUANTIZER
    draws = False
    paper = "Vargaftik et al. 2022, arXiv 2108.08842"
    needs: ClassVar[Mapping[Trait, str]] = {
        Trait.OWN_ROTATION: "its levels fit normal values, and only rotations of their own cancel its errors"
    }
    parameter = "bits a symbol, 1 to 4"
    example = "1"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 1, 4)

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

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the blocks' scales and the levels."""
        if not len(values):
            return b"", np.zeros(0, np.uint8)
        if (kernels := fast.kernels()) and (done := kernels.eden(values, self.block_levels[1 << self.bits - 1 :])):
            return done[0].astype("<f4", copy=False).tobytes(), done[1]
        room = np.empty((2, len(values)), np.float32)
        magnitudes, other = room
        np.abs(values, out=magnitudes)
        # Divided by the largest value first: squares of finite numbers may not be finite, or all be zero.
        largest = blocks.largest(magnitudes)
        blocks.multiply(magnitudes, blocks.inverse(largest))
        np.multiply(magnitudes, magnitudes, out=other)
        if self.bits == 1:
            symbols = np.greater_equal(values, 0).view(np.uint8)
            projection, squares = sums.of_blocks(room)
        else:
            (squares,) = sums.of_blocks(other[None])
            symbols = self._symbols(values, magnitudes, squares, other)
            (projection,) = sums.of_blocks(np.multiply(magnitudes, other, out=magnitudes)[None])
        scales = blocks.quotient(squares, projection) * largest
        return scales.astype("<f4", copy=False).tobytes(), symbols

    def _symbols(self, values: F32, magnitudes: F32, squares: F32, room: F32) -> U8:
        """Return the symbols of values whose magnitudes, over one number, are given; their |q| go into `room`."""
        size = len(values)
        sizes = np.full(len(squares), blocks.BLOCK, np.float32)
        sizes[-1] -= len(sizes) * blocks.BLOCK - size
        deviation = np.sqrt(squares / sizes)
        np.copyto(room, magnitudes)
        blocks.multiply(room, blocks.quotient(np.full_like(deviation, UNIT), deviation))
        positive, edges = _boundaries(self.bits)
        places = np.empty(size, np.uint8)
        above = np.empty((len(edges), min(size, blocks.BLOCK)), np.bool_)
        for start in range(0, size, blocks.BLOCK):
            # All boundaries at once, of a block at a time: a few bytes a value, and two calls of numpy.
            block = slice(start, min(start + blocks.BLOCK, size))
            over = np.greater(room[block], edges, out=above[:, : block.stop - start])
            np.add.reduce(over.view(np.uint8), axis=0, out=places[block])
        positive.take(places, out=room, mode="clip")
        # Levels rise from the most negative: place p is symbol 2^(b−1) + p, or with a minus 2^(b−1) − 1 − p.
        places ^= np.negative(np.less(values, 0).view(np.int8)).view(np.uint8)
        places += np.uint8(len(positive))
        return places


@functools.cache
def _boundaries(bits: int) -> tuple[F32, F32]:
    """Return the positive levels, and what lies midway between neighbours, one below the other."""
    positive = np.array(POSITIVE[bits], np.float32)
    edges = (positive[1:] + positive[:-1]) / np.float32(2)
    return positive, edges[:, None]
