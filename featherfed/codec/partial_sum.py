"""A part of a round's sum on its way up a tree: what a gateway's circles add to `Summed`, whole numbers throughout.

The bytes, lowest first:

    of           8   what the sum is of (a digest): another round, other steps or another uplink add up to nothing
    coordinates  8   K
    phones       8   in the sum
    blocks       4   B
    sizes        4   how many sizes of circles there are
    width        1   bytes a coordinate
    counts       8·B           phones whose coordinates of a block are in it
    wrapped      B             1: the block wrapped in a circle
    for each size of circles, rising: the size, 4, and for each block the sum of squares, 16, and its values, 8
    sums         width·K       in 2⁻¹⁷ steps, in two's complement

Squares are of sums cut by nine bits, as `Summed` has them: what the next steps follow from is what one server would
have of the same circles, to the bit.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featherfed.errors import CodecError

_HEADER = struct.Struct("<8sQQIIB")
_SQUARE_BYTES = 16
MOST_PHONES = 1 << 30
"""In one sum: 2³⁰ phones of 16 bits fit the sum's 64."""

I64 = npt.NDArray[np.int64]
ByBlock = tuple[int, ...]


def width_of(bits: int, phones: int) -> int:
    """Return how many bytes hold a coordinate of the sum of so many phones' r-bit residues, each alone in its circle.

    >>> width_of(4, 10), width_of(4, 100), width_of(16, MOST_PHONES)
    (4, 4, 8)
    """
    return -(-(bits + 17 + phones.bit_length()) // 8)


@dataclass(frozen=True, slots=True, eq=False)
class PartialSum:
    """What circles add to a round's sum. `sums` is (coordinates,), in 2⁻¹⁷ steps; all else is by block.

    `squares` and `values` are by the size of a circle, then by block: Σ(sum >> 9)² and how many coordinates that are.
    """

    phones: int
    sums: I64
    counts: ByBlock
    wrapped: frozenset[int]
    squares: Mapping[int, ByBlock]
    values: Mapping[int, ByBlock]

    def to_bytes(self, of: bytes, *, width: int) -> bytes:
        """Return the sum for another process; `of` is 8 bytes, `width` the bytes of a coordinate."""
        blocks = len(self.counts)
        parts = [
            _HEADER.pack(of, len(self.sums), self.phones, blocks, len(self.squares), width),
            struct.pack(f"<{blocks}Q", *self.counts),
            bytes(block in self.wrapped for block in range(blocks)),
        ]
        for size in sorted(self.squares):
            parts.append(struct.pack("<I", size))
            for square, values in zip(self.squares[size], self.values[size], strict=True):
                parts.append(square.to_bytes(_SQUARE_BYTES, "little") + struct.pack("<Q", values))
        whole = np.ascontiguousarray(self.sums, "<i8").view(np.uint8).reshape(-1, 8)
        return b"".join(parts) + whole[:, :width].tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, of: bytes, *, coordinates: int, blocks: int) -> "PartialSum":
        """Return what `to_bytes` wrote; raises `CodecError` for a sum of another thing, or bytes that are none."""
        if len(data) < _HEADER.size:
            raise CodecError(f"partial sum of {len(data)} bytes has no header")
        known, size, phones, num_blocks, sizes, width = _HEADER.unpack_from(data)
        if known != of:
            raise CodecError(
                "a partial sum of another round, or of a gateway whose --uplink, --clip-norm, --circle, --cohort or"
                " --secure is not the root's"
            )
        if (size, num_blocks) != (coordinates, blocks) or not 1 <= width <= 8 or phones > MOST_PHONES:
            raise CodecError(
                f"partial sum of {phones} phones, {size} coordinates and {num_blocks} blocks, in a round of"
                f" {coordinates} coordinates and {blocks} blocks"
            )
        row = 4 + blocks * (_SQUARE_BYTES + 8)
        if len(data) != _HEADER.size + 9 * blocks + sizes * row + width * coordinates:
            raise CodecError(f"partial sum of {len(data)} bytes does not hold {sizes} sizes of circles")
        at = _HEADER.size
        counts = struct.unpack_from(f"<{blocks}Q", data, at)
        at += 8 * blocks
        wrapped = frozenset(block for block in range(blocks) if data[at + block])
        at += blocks
        squares: dict[int, ByBlock] = {}
        values: dict[int, ByBlock] = {}
        for _ in range(sizes):
            (members,) = struct.unpack_from("<I", data, at)
            entries = [data[at + 4 + 24 * block : at + 28 + 24 * block] for block in range(blocks)]
            squares[members] = tuple(int.from_bytes(entry[:_SQUARE_BYTES], "little") for entry in entries)
            values[members] = tuple(int.from_bytes(entry[_SQUARE_BYTES:], "little") for entry in entries)
            at += row
        if len(squares) != sizes:
            raise CodecError("partial sum that has a size of circles twice")
        whole = np.zeros((coordinates, 8), np.uint8)
        whole[:, :width] = np.frombuffer(data, np.uint8, offset=at).reshape(coordinates, width)
        sums = whole.view("<i8").reshape(coordinates).astype(np.int64)
        if width < 8:
            # The sign, which was in the highest byte that came.
            sums <<= 64 - 8 * width
            sums >>= 64 - 8 * width
        return cls(phones, sums, counts, wrapped, squares, values)


def partial_sum_bytes(coordinates: int, blocks: int, width: int, *, sizes: int = 1) -> int:
    """Return how many bytes `to_bytes` gives where circles are of so many sizes."""
    return _HEADER.size + 9 * blocks + sizes * (4 + 24 * blocks) + width * coordinates
