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
from collections.abc import Callable, Iterator
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


def mix(values: F32, order: int, scratch: F32) -> None:
    """Multiply each run of `order` values of each row by the Hadamard matrix of ±1, in place; (rows, values).

    The factors are ±1 and the scale comes last: whole numbers give the same bits with every matrix library. A row's
    products have the same shapes whatever the other rows are, so that they never change its bits. `scratch` has room
    for twice the values.
    """
    rows, size = values.shape
    left, middle, right = _factors(order)
    first, second = scratch[: 2 * rows * size].reshape(2, rows, size)
    shape: tuple[int, ...] = (rows, -1, right)
    np.matmul(values.reshape(shape), hadamard(right), out=first.reshape(shape))
    shape = (rows, -1, middle, right)
    np.matmul(hadamard(middle), first.reshape(shape), out=second.reshape(shape))
    shape = (rows, -1, left, middle * right)
    np.matmul(hadamard(left), second.reshape(shape), out=values.reshape(shape))


def transform(values: F32, order: int) -> None:
    """Multiply each run of `order` values by the orthonormal Hadamard matrix, in place; it is its own inverse."""
    step = max(RUN // order, 1) * order
    scratch = np.empty(2 * min(step, len(values)), np.float32)
    for start in range(0, len(values), step):
        run = values[start : start + step]
        mix(run[None], order, scratch)
        run *= _scale(order)


def _scale(order: int) -> np.float32:
    return np.float32(1 / np.sqrt(np.float32(order)))


def _tiling(size: int) -> tuple[int, int]:
    """Return the order of a tensor's blocks, and how many of its values whole blocks cover."""
    order = min(BLOCK, 1 << (max(size, 1).bit_length() - 1))
    return order, size - size % order


def spans(size: int) -> Iterator[slice]:
    """Yield the runs of a tensor that are rotated each on its own; the last one has the block that overlaps another."""
    main = _tiling(size)[1]
    for start in range(0, main, RUN):
        yield slice(start, size if start + RUN >= main else start + RUN)


def _steps(span: slice, size: int) -> list[tuple[slice, int]]:
    """Return what is mixed one after the other in a span of a tensor: its place in the span, and its signs' bytes."""
    order, main = _tiling(size)
    if order == 1:
        return []
    steps = [(slice(0, min(span.stop, main) - span.start), span.start // 8)]
    if span.stop > main:
        # Drawn after those of the others, which took whole words of four bytes.
        steps.append((slice(size - order - span.start, size - span.start), -(-main // 32) * 4))
    return steps


@functools.cache
def _eight_signs() -> F32:
    """Return the signs that each byte stands for, highest bit first: 1 is a minus, (256, 8) float32."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return (1 - 2.0 * bits).astype(np.float32)


def draw_signs(size: int, generator: np.random.Generator) -> U8:
    """Return bytes that hold at least `size` random signs, as `generator.bytes` gives them, in a tenth of its time."""
    words = generator.bit_generator.random_raw(-(-size // 64))
    return np.asarray(words, "<u8").view(np.uint8)


def signs(drawn: U8, size: int) -> F32:
    """Return `size` drawn signs as ±1."""
    # Whole rows of a table that lies in the first cache: several times as fast as one bit after the other.
    return _eight_signs().take(drawn, axis=0).reshape(-1)[:size]


@functools.cache
def _scaled_signs(order: int) -> F32:
    return _eight_signs() * _scale(order)


def _flip(values: F32, drawn: U8, table: F32, scratch: F32) -> None:
    """Multiply each row of `values`, (rows, values), by what `table` has for its drawn signs, in place."""
    rows, size = values.shape
    num_bytes = -(-size // 8)
    factors = scratch[: rows * num_bytes * 8].reshape(rows, num_bytes, 8)
    table.take(drawn[:, :num_bytes], axis=0, out=factors, mode="clip")
    values *= factors.reshape(rows, -1)[:, :size]


def scratch_for(num_values: int) -> F32:
    """Return room to rotate so many values at a time, in rows or in one."""
    return np.empty(2 * (num_values + 8), np.float32)


def rotate_span(values: F32, drawn: U8, span: slice, size: int, scratch: F32) -> None:
    """Turn each row, the values of a span of a tensor of `size`, into H D x in place; (rows, span), (rows, bytes)."""
    order = _tiling(size)[0]
    for place, at in _steps(span, size):
        run = values[:, place]
        _flip(run, drawn[:, at:], _eight_signs(), scratch)
        mix(run, order, scratch)
        run *= _scale(order)


def rotate_span_back(values: F32, drawn: U8, span: slice, size: int, scratch: F32) -> None:
    """Undo `rotate_span`: D H y in place of each row."""
    order = _tiling(size)[0]
    for place, at in reversed(_steps(span, size)):
        run = values[:, place]
        mix(run, order, scratch)
        _flip(run, drawn[:, at:], _scaled_signs(order), scratch)


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
        self._each_span(rotate_span, rotated, key, index)
        return rotated

    def backward(self, values: F32, key: RoundKey, index: int) -> F32:
        """Return D H y, in place of y."""
        self._each_span(rotate_span_back, values, key, index)
        return values

    def _each_span(self, work: Callable[..., None], values: F32, key: RoundKey, index: int) -> None:
        size = len(values)
        drawn = self.draw(size, key, index)[None]
        scratch = scratch_for(min(size, RUN + BLOCK))
        for span in spans(size):
            work(values[None, span], drawn, span, size, scratch)

    def draw(self, size: int, key: RoundKey, index: int) -> U8:
        """Return the bytes of all signs of part `index`, which has `size` values."""
        order, main = _tiling(size)
        overlapping = order if main < size else 0
        return draw_signs(-(-main // 32) * 32 + overlapping, self._key(key).generator(f"rotate/{index}"))


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
