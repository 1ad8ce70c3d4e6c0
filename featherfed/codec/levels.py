"""Quantizers whose values are small whole numbers times a number of their block: what a rotation undoes exactly.

With S a block's number and q its whole numbers, x̂ = D H (S q) = S D (H q), and H q is exact (`hadamard`).
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.space import F32
from featherfed.codec.stage import U8, Stage, finite


@dataclass(frozen=True, slots=True)
class Levels(Stage):
    """Header: a float32 for each block; a symbol stands for one of `block_levels`."""

    in_blocks: ClassVar[bool] = True

    def header_bytes(self, size: int) -> int:
        """Return one float32 a block."""
        return 4 * blocks.count(size)

    def numbers(self, header: bytes) -> F32:
        """Return the blocks' numbers, (blocks,) float32; NaN and infinity raise `CodecError`."""
        return finite(np.frombuffer(header, "<f4").astype(np.float32))

    def table(self, header: bytes) -> F32 | None:
        """Return the whole numbers of the symbols."""
        return self.block_levels if len(self.block_levels) else None

    def whole(self, symbols: U8, size: int) -> F32:
        """Return the whole numbers, at most 2¹¹, that the blocks' numbers multiply, (size,) float32."""
        if len(self.block_levels) == 2:
            # Two levels are ±1: arithmetic on bytes is four times as fast as looking them up.
            signs = symbols.view(np.int8)
            return (signs + signs - np.int8(1)).astype(np.float32)
        return blocks.look_up(self.block_levels, symbols)

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return whole numbers times their block's number."""
        values = self.whole(symbols, size)
        blocks.multiply(values, self.numbers(header))
        return values


@functools.cache
def both_signs(positive: tuple[int, ...]) -> F32:
    """Return levels with both signs, rising, float32."""
    return np.array([*(-level for level in reversed(positive)), *positive], np.float32)
