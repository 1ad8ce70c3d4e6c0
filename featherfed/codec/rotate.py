"""rotate: a random rotation before the quantizer (Suresh et al. 2017; Konečný et al. 2016, section 3).

    y = H D x / √B

D is a diagonal of random signs from the seed, H the Hadamard matrix of order B. Whatever x was, the values of y are
close to normal with one variance, which is what quantizers are made for. Its inverse is x = D H y / √B.

Nothing is padded. Power-of-two blocks tile the tensor; what is left at the end (or a tensor that is no power of two) is
mixed by one more block of the same kind that ends with the tensor and overlaps the one before. A product of orthogonal
maps is orthogonal.

H of order B = P·Q is H_P ⊗ H_Q, so that a block is rotated by two small matrix products that stay in the cache.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec.blocks import BLOCK
from featherfed.codec.space import F32
from featherfed.codec.stage import Slot, Stage
from featherfed.randomness import RoundKey


@functools.cache
def hadamard(order: int) -> F32:
    """Return the orthonormal Hadamard matrix of a power-of-two order, (order, order) float32."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: F32 = (matrix / np.sqrt(np.float32(order))).astype(np.float32)
    return scaled


def transform(values: F32, order: int) -> None:
    """Multiply each run of `order` values by the orthonormal Hadamard matrix, in place; it is its own inverse."""
    rows = 1 << ((order.bit_length() - 1) // 2)
    columns = order // rows
    blocks = values.reshape(-1, rows, columns)
    mixed = blocks.reshape(-1, columns) @ hadamard(columns)
    np.matmul(hadamard(rows), mixed.reshape(blocks.shape), out=blocks)


def mix(values: F32, *, backward: bool) -> None:
    """Apply the tiling of Hadamard blocks, or its inverse, in place."""
    size = len(values)
    if size < 2:
        return
    order = min(BLOCK, 1 << (size.bit_length() - 1))
    tiled = size // order * order
    steps = [(0, tiled)] + ([(size - order, size)] if tiled < size else [])
    for start, end in reversed(steps) if backward else steps:
        transform(values[start:end], order)


def signs(size: int, generator: np.random.Generator) -> F32:
    """Return `size` random signs as float32."""
    bits = np.unpackbits(np.frombuffer(generator.bytes(-(-size // 8)), np.uint8), count=size)
    result = bits.astype(np.float32)
    result *= -2
    result += 1
    return result


@dataclass(frozen=True, slots=True)
class Rotate(Stage):
    """A rotation of its own for each phone and round: errors of many phones cancel."""

    name = "rotate"
    slot = Slot.ROTATION
    paper = "Konečný et al. 2016, arXiv 1610.05492"
    shared: ClassVar[bool] = False

    def _key(self, key: RoundKey) -> RoundKey:
        return key

    def forward(self, values: F32, key: RoundKey, index: int) -> F32:
        """Return H D x.

        >>> key = RoundKey(0, 1, 2)
        >>> rotated = Rotate().forward(np.ones(5, np.float32), key, 0)
        >>> np.allclose(Rotate().backward(rotated, key, 0), 1)
        True
        """
        rotated: F32 = values * signs(len(values), self._key(key).generator(f"rotate/{index}"))
        mix(rotated, backward=False)
        return rotated

    def backward(self, values: F32, key: RoundKey, index: int) -> F32:
        """Return D H y."""
        values = values.copy()
        mix(values, backward=True)
        values *= signs(len(values), self._key(key).generator(f"rotate/{index}"))
        return values


@dataclass(frozen=True, slots=True)
class RotateShared(Rotate):
    """One rotation for all phones of a round, so that the server sums rotated updates and inverts once a round.

    The idea of QUIC-FL (Ben Basat et al. 2023): an unbiased quantizer does not need rotations of their own for errors
    to cancel.
    """

    name = "rotate_shared"
    paper = "Ben Basat et al. 2023, arXiv 2205.13341"
    shared: ClassVar[bool] = True

    def _key(self, key: RoundKey) -> RoundKey:
        return key.shared()
