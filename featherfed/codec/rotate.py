"""rotate: a random rotation before the quantizer (Suresh et al. 2017; Konečný et al. 2016, section 3).

    y = H D x

D is a diagonal of random signs from the seed, H the orthonormal Hadamard matrix of order B. Whatever x was, the values
of y are close to normal with one variance, which is what quantizers are made for. Its inverse is x = D H y.

Nothing is padded. Blocks of B = 2^⌊log₂ n⌋ values, at most 8192, tile the tensor; what is left at the end is mixed by
one more block that ends with the tensor and overlaps the one before. It has signs of its own: without them H H = 1
would undo most of what the block before did. A product of orthogonal maps is orthogonal.

H of order B = P·Q·R is H_P ⊗ H_Q ⊗ H_R, so that a block is rotated by three products with matrices of some 16 columns,
in runs that stay in the cache.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec.blocks import BLOCK, RUN
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage
from featherfed.randomness import RoundKey


@functools.cache
def hadamard(order: int) -> F32:
    """Return the Hadamard matrix of a power-of-two order, (order, order) float32 of ±1."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _factors(order: int) -> tuple[int, int, int]:
    """Return three powers of two, about equal and the last one largest, whose product is `order`."""
    exponent = order.bit_length() - 1
    return 1 << exponent // 3, 1 << (exponent + 1) // 3, 1 << (exponent + 2) // 3


def transform(values: F32, order: int) -> None:
    """Multiply each run of `order` values by the orthonormal Hadamard matrix, in place; it is its own inverse.

    The factors are ±1 and the scale comes last: whole numbers give the same bits with every matrix library.
    """
    scale = 1 / np.sqrt(np.float32(order))
    left, middle, right = _factors(order)
    step = max(RUN // order, 1) * order
    scratch = np.empty((2, min(step, len(values))), np.float32)
    for start in range(0, len(values), step):
        run = values[start : start + step]
        first, second = scratch[:, : len(run)]
        np.matmul(run.reshape(-1, right), hadamard(right), out=first.reshape(-1, right))
        shape = (-1, middle, right)
        np.matmul(hadamard(middle), first.reshape(shape), out=second.reshape(shape))
        shape = (-1, left, middle * right)
        np.matmul(hadamard(left), second.reshape(shape), out=run.reshape(shape))
        run *= scale


def _steps(size: int) -> Iterator[tuple[slice, int]]:
    """Yield the runs that are mixed one after the other, with the order of their blocks."""
    if size < 2:
        return
    order = min(BLOCK, 1 << (size.bit_length() - 1))
    rest = size % order
    yield slice(0, size - rest), order
    if rest:
        yield slice(size - order, size), order


@functools.cache
def _eight_signs() -> F32:
    """Return the signs that each byte stands for, highest bit first: 1 is a minus, (256, 8) float32."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return (1 - 2.0 * bits).astype(np.float32)


def draw_signs(size: int, generator: np.random.Generator) -> U8:
    """Return bytes that hold `size` random signs."""
    return np.frombuffer(generator.bytes(-(-size // 8)), np.uint8)


def signs(drawn: U8, size: int) -> F32:
    """Return `size` drawn signs as ±1."""
    # Whole rows of a table that lies in the first cache: several times as fast as one bit after the other.
    return _eight_signs().take(drawn, axis=0).reshape(-1)[:size]


def flip(values: F32, drawn: U8) -> None:
    """Multiply `values` by their drawn signs, in place."""
    for start in range(0, len(values), RUN):
        run = values[start : start + RUN]
        run *= signs(drawn[start // 8 : (start + RUN) // 8], len(run))


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
        rotated = values.copy()
        for run, order, drawn in self._signed_steps(len(values), key, index):
            flip(rotated[run], drawn)
            transform(rotated[run], order)
        return rotated

    def backward(self, values: F32, key: RoundKey, index: int) -> F32:
        """Return D H y, in place of y."""
        for run, order, drawn in reversed([*self._signed_steps(len(values), key, index)]):
            transform(values[run], order)
            flip(values[run], drawn)
        return values

    def _signed_steps(self, size: int, key: RoundKey, index: int) -> Iterator[tuple[slice, int, U8]]:
        generator = self._key(key).generator(f"rotate/{index}")
        for run, order in _steps(size):
            yield run, order, draw_signs(run.stop - run.start, generator)


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
