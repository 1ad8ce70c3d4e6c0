"""vertex(D): one vertex of the cross-polytope for D values, far below one bit a value (Gandikota et al. 2021, vqSGD).

After a random rotation, each run of D values becomes the vertex ±e_i nearest to it: the place of its largest magnitude
and the sign there, log₂ D + 1 bits. With q all runs' vertices of a block y, as in `eden`,

    ŷ = S q,    S = ‖y‖² / ⟨y, q⟩

so that ⟨y, ŷ⟩ = ‖y‖², and E[x̂] = x over random rotations. With m the mean of the largest of D normal magnitudes,
vNMSE = D/m² − 1: 15.6 at 1/16 bit, where `subsample(1/16) | rotate | eden(1)`, at 1/16 bit too, has 24.1. The
vertices are a codebook that both ends draw from shared randomness; that it is orthogonal makes the search a rotation.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks, fast, sums
from featherfed.codec.levels import Levels
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Trait
from featherfed.errors import CodecError, SpecError


@stage("vertex")
@dataclass(frozen=True, slots=True)
class Vertex(Levels):
    """Header: S of each block as float32; for each run of `values` a symbol, the sign above the place."""

    values: int

    slot = Slot.QUANTIZER
    draws = False
    leaves_zeros = True
    paper = "Gandikota et al. 2021, arXiv 1911.07971"
    needs: ClassVar[Mapping[Trait, str]] = {
        Trait.OWN_ROTATION: "one of its values stands for many, and only rotations of their own cancel its errors"
    }
    parameter = "values a symbol, a power of two from 2 to 128"
    example = "128"

    def __post_init__(self) -> None:
        if self.values not in (2, 4, 8, 16, 32, 64, 128):
            raise SpecError(f"{self} is not a power of two from 2 to 128 values a symbol")

    @property
    def symbol_bits(self) -> int:
        """Bits of a place and a sign."""
        return self.values.bit_length()

    @property
    def levels(self) -> int:
        """Vertices of the cross-polytope."""
        return 2 * self.values

    @property
    def symbol_values(self) -> F32:
        """The vertices: ±1 at one place."""
        return _vertices(self.values)

    def symbols(self, size: int) -> int:
        """Return one for each run of values."""
        return -(-size // self.values)

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the blocks' scales and the vertices.

        >>> header, symbols = Vertex(2).encode(np.array([1, -3, 2, 1], np.float32), np.random.default_rng())
        >>> Vertex(2).decode(header, symbols, 4)
        array([ 0., -3.,  3.,  0.], dtype=float32)
        """
        size = len(values)
        if not size:
            return b"", np.zeros(0, np.uint8)
        if (kernels := fast.kernels()) and (done := kernels.vertex(values, self.values)):
            return done[0].astype("<f4", copy=False).tobytes(), done[1]
        room = np.empty((2, self.symbols(size) * self.values), np.float32)
        magnitudes, chosen = room
        np.abs(values, out=magnitudes[:size])
        magnitudes[size:] = 0
        # Divided by the largest value first: squares of finite numbers may not be finite, or all be zero.
        largest = blocks.largest(magnitudes)
        blocks.multiply(magnitudes, blocks.inverse(largest))
        places = magnitudes.reshape(-1, self.values).argmax(axis=1)
        at = np.arange(0, magnitudes.size, self.values)
        at += places
        chosen[:] = 0
        chosen[at] = magnitudes[at]
        magnitudes *= magnitudes
        squares, projection = sums.of_blocks(room)
        scales = blocks.quotient(squares, projection) * largest
        places += self.values * np.signbit(values[at])
        return scales.astype("<f4", copy=False).tobytes(), places.astype(np.uint8)

    def whole(self, symbols: U8, size: int) -> F32:
        """Return q: ±1 at each run's place, zeros elsewhere."""
        places = np.arange(0, size, self.values) + symbols % self.values
        if size and places[-1] >= size:
            raise CodecError(f"place {int(places[-1])} is beyond the {size} values of its tensor")
        values = np.zeros(size, np.float32)
        values[places] = 1 - 2 * (symbols // self.values).astype(np.float32)
        return values


@functools.cache
def _vertices(values: int) -> F32:
    positive = np.eye(values, dtype=np.float32)
    # Not −positive, whose zeros are −0.
    return np.concatenate([positive, 0 - positive])
