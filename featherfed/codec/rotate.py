"""rotate: a random rotation before the quantizer (Suresh et al. 2017; Konečný et al. 2016, section 3).

    y = H D x

D is a diagonal of random signs from the seed, H the orthonormal Hadamard matrix of order B (`hadamard`). Whatever x
was, the values of y are close to normal with one variance, which is what quantizers are made for. Its inverse is
x = D H y.

Nothing is padded. Blocks of B = 2^⌊log₂ n⌋ values, at most 8192, tile the tensor; what is left at the end is mixed
before them by one more block that ends with the tensor and overlaps the last one. It has signs of its own: without
them H H = 1 would undo most of what it did. A product of orthogonal maps is orthogonal.

The overlapping block comes first, so that its inverse comes last: what a decoder knows as small whole numbers times
one number goes into the inverse of the others as it is, and they need no rounding.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from featherfed.codec import fast
from featherfed.codec.blocks import BLOCK, RUN, count
from featherfed.codec.hadamard import mix, mix_whole, scratch_for
from featherfed.codec.registry import stage
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Slot, Stage, Trait
from featherfed.randomness import RoundKey, bit_generators, seeds_of

if TYPE_CHECKING:
    from featherfed.codec.compiled.kernels import Kernels

SPAN = 2 * RUN
"""Values that are rotated at a time: many, since numpy takes a microsecond a call, and there are two dozen."""


@functools.lru_cache(1024)
def _tiling(size: int) -> tuple[int, int]:
    """Return the order of a tensor's blocks, and how many of its values whole blocks cover."""
    order = min(BLOCK, 1 << (max(size, 1).bit_length() - 1))
    return order, size - size % order


def spans(size: int) -> Iterator[slice]:
    """Yield the runs of a tensor that are rotated each on its own; the last one has the block that overlaps another."""
    main = _tiling(size)[1]
    for start in range(0, main, SPAN):
        yield slice(start, size if start + SPAN >= main else start + SPAN)


def _overlap(span: slice, size: int) -> tuple[slice, int] | None:
    """Return the place in a span of the block that overlaps another, and where its signs are; None where is none."""
    order, main = _tiling(size)
    if order == 1 or span.stop <= main:
        return None
    # Drawn after those of the others, which took whole words of four bytes.
    return slice(size - order - span.start, size - span.start), -(-main // 32) * 4


@functools.cache
def _eight_signs() -> F32:
    """Return the signs that each byte stands for, highest bit first: 1 is a minus, (256, 8) float32."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return (1 - 2.0 * bits).astype(np.float32)


def draw_signs(size: int, generator: np.random.Generator) -> U8:
    """Return bytes that hold at least `size` random signs, as `generator.bytes` gives them, in a tenth of its time."""
    return _drawn(size, generator.bit_generator)


def _drawn(size: int, bits: np.random.BitGenerator) -> U8:
    return np.asarray(bits.random_raw(-(-size // 64)), "<u8").view(np.uint8)


def whole_blocks(size: int) -> tuple[int, int]:
    """Return how many values of a tensor lie in blocks that do not overlap, and how many each of them has."""
    order, main = _tiling(size)
    return main, order


def signs(drawn: U8, size: int) -> F32:
    """Return `size` drawn signs as ±1."""
    # Whole rows of a table that lies in the first cache: several times as fast as one bit after the other.
    return _eight_signs().take(drawn, axis=0).reshape(-1)[:size]


def _flip(values: F32, drawn: U8, scratch: F32, source: F32 | None = None) -> None:
    """Turn each row of `values`, (rows, values), into that of `source`, or itself, times its drawn signs."""
    rows, size = values.shape
    num_bytes = -(-size // 8)
    factors = scratch[: rows * num_bytes * 8].reshape(rows, num_bytes, 8)
    _eight_signs().take(drawn[:, :num_bytes], axis=0, out=factors, mode="clip")
    np.multiply(values if source is None else source, factors.reshape(rows, -1)[:, :size], out=values)


def _kernels_for(values: F32) -> "Kernels | None":
    """Return the compiled loops for a row by itself: of many small ones, numpy's calls cost little each."""
    return fast.kernels() if len(values) == 1 and values.flags.c_contiguous and values.flags.writeable else None


def rotate_span(values: F32, drawn: U8, span: slice, size: int, scratch: F32, source: F32) -> None:
    """Turn `source`, rows of the values of a span of a tensor of `size`, into H D x; (rows, span), (rows, bytes)."""
    order, main = _tiling(size)
    if order == 1:
        values[...] = source
        return
    if (kernels := _kernels_for(values)) and kernels.rotate(
        values[0], drawn[0], span.start, size, order, main, source[0]
    ):
        return
    overlap = _overlap(span, size)
    if overlap is not None:
        place, at = overlap
        values[:, : place.start] = source[:, : place.start]
        _flip(values[:, place], drawn[:, at:], scratch, source[:, place])
        mix(values[:, place], order, scratch)
        source = values
    tiled = slice(0, min(span.stop, main) - span.start)
    _flip(values[:, tiled], drawn[:, span.start // 8 :], scratch, source[:, tiled])
    mix(values[:, tiled], order, scratch)


def rotate_span_back(
    values: F32, drawn: U8, span: slice, size: int, scratch: F32, numbers: F32 | None = None, *, begun: int = 1
) -> None:
    """Undo `rotate_span`: D H y in place of each row.

    Where `numbers`, (rows, blocks of the span), are given, values are whole numbers up to 2¹¹ that they multiply. Those
    in whole blocks may be products with the matrix of order `begun` (`mix_whole`).
    """
    order, main = _tiling(size)
    if begun == 1 < order and (kernels := _kernels_for(values)):
        mine = None if numbers is None else numbers[0]
        if kernels.rotate_back(values[0], drawn[0], span.start, size, order, main, mine):
            return
    tiled = values[:, : min(span.stop, main) - span.start]
    if numbers is not None:
        # The last number is that of the values behind the tiled ones, if there are such.
        values[:, tiled.shape[1] :] *= numbers[:, -1:]
    if order == 1:
        if numbers is not None:
            tiled *= numbers
        return
    if numbers is None:
        mix(tiled, order, scratch)
    else:
        mix_whole(tiled, order, numbers[:, : tiled.shape[1] // order], scratch, begun)
    _flip(tiled, drawn[:, span.start // 8 :], scratch)
    overlap = _overlap(span, size)
    if overlap is not None:
        place, at = overlap
        run = values[:, place]
        mix(run, order, scratch)
        _flip(run, drawn[:, at:], scratch)


@stage("rotate")
@dataclass(frozen=True, slots=True)
class Rotate(Stage):
    """A rotation of its own for each phone and round: errors of many phones cancel."""

    slot = Slot.ROTATION
    paper = "Konečný et al. 2016, arXiv 1610.05492"
    offers = frozenset({Trait.NORMAL, Trait.SPREAD, Trait.OWN_ROTATION})
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
        rotated = np.empty_like(values)
        drawn, scratch = self._start(values, key, index)
        for span in spans(len(values)):
            rotate_span(rotated[None, span], drawn, span, len(values), scratch, values[None, span])
        return rotated

    def forward_runs(self, values: F32, key: RoundKey, index: int) -> Iterator[F32]:
        """Yield `forward` run by run, in room that the next one uses again: each but the last has whole blocks."""
        drawn, scratch = self._start(values, key, index)
        room = np.empty_like(scratch)
        for span in spans(len(values)):
            run = room[: span.stop - span.start]
            rotate_span(run[None], drawn, span, len(values), scratch, values[None, span])
            yield run

    def backward(self, values: F32, key: RoundKey, index: int, numbers: F32 | None = None) -> F32:
        """Return D H y, in place of y, or of y without the numbers, (blocks,), that its blocks are multiplied with."""
        drawn, scratch = self._start(values, key, index)
        for span in spans(len(values)):
            mine = None if numbers is None else numbers[None, span.start // BLOCK : count(span.stop)]
            rotate_span_back(values[None, span], drawn, span, len(values), scratch, mine)
        return values

    def _start(self, values: F32, key: RoundKey, index: int) -> tuple[U8, F32]:
        """Return the signs, in one row, and room for a span."""
        return self.draw(len(values), key, index)[None], scratch_for(min(len(values), SPAN + BLOCK))

    def draw(self, size: int, key: RoundKey, index: int) -> U8:
        """Return the bytes of all signs of part `index`, which has `size` values."""
        return draw_signs(_signs_of(size), self._key(key).generator(f"rotate/{index}"))

    def draw_rows(self, sizes: Sequence[tuple[int, int]], keys: Sequence[RoundKey]) -> list[U8]:
        """Return `draw` of each (index, size) of parts, one row for each key: (keys, bytes)."""
        keys, purposes = [self._key(key) for key in keys], [f"rotate/{index}" for index, _ in sizes]
        if (kernels := fast.kernels()) is not None:
            seeds = seeds_of(keys, purposes).reshape(len(sizes), len(keys), 4)
            return [kernels.draw(each, -(-_signs_of(size) // 64)) for (_, size), each in zip(sizes, seeds, strict=True)]
        made = bit_generators(keys, purposes)
        return [
            np.stack([_drawn(_signs_of(size), bits) for bits in of_part])
            for (_, size), of_part in zip(sizes, made, strict=True)
        ]


def _signs_of(size: int) -> int:
    """Return how many signs are drawn for a tensor; those of blocks that do not overlap take whole words."""
    order, main = _tiling(size)
    return -(-main // 32) * 32 + (order if main < size else 0)


@stage("rotate_shared")
@dataclass(frozen=True, slots=True)
class RotateShared(Rotate):
    """One rotation for all phones of a round, so that the server sums rotated updates and inverts once a round.

    The idea of QUIC-FL (Ben Basat et al. 2023): an unbiased quantizer does not need rotations of their own for errors
    to cancel.
    """

    paper = "Ben Basat et al. 2023, arXiv 2205.13341"
    offers = frozenset({Trait.NORMAL, Trait.SPREAD, Trait.EVEN})
    shared: ClassVar[bool] = True

    def _key(self, key: RoundKey) -> RoundKey:
        return key.shared()
