"""Residues modulo 2^r: packed without gaps, r bits each, highest bit first, for r up to 16."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec import bits
from featherfed.errors import CodecError

U16 = npt.NDArray[np.uint16]
Residues = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 for up to 8 bits, else uint16."""


def dtype_of(width: int) -> type[np.uint8] | type[np.uint16]:
    """Return the type of residues of so many bits."""
    return np.uint8 if width <= 8 else np.uint16


def pack(residues: Residues, width: int) -> bytes:
    """Return residues below 2^width, highest bit first, the last byte filled with zeros.

    >>> pack(np.array([0x123, 0x456], np.uint16), 12).hex()
    '123456'
    """
    if width <= 8:
        return bits.pack(residues.astype(np.uint8, copy=False), width)
    groups = np.zeros((-(-len(residues) // 8), 8), np.uint32)
    groups.reshape(-1)[: len(residues)] = residues
    packed = np.zeros((len(groups), width), np.uint8)
    for lane, columns, spare in _lanes(width):
        word = groups[:, lane] << spare
        for column in reversed(columns):
            packed[:, column] |= word.astype(np.uint8)
            word >>= 8
    return packed.tobytes()[: bits.packed_bytes(len(residues), width)]


def check(data: bytes | memoryview, count: int, width: int) -> None:
    """Raise `CodecError` for bytes that `pack` makes of no residues: of another length, or not filled with zeros."""
    if len(data) != (wanted := bits.packed_bytes(count, width)):
        raise CodecError(f"{count} residues of {width} bits are {wanted} bytes, and {len(data)} came")
    spare = 8 * wanted - count * width
    if spare and data[-1] & ((1 << spare) - 1):
        raise CodecError(f"the last {spare} bits of {count} residues of {width} bits are {data[-1]:08b}, and not zeros")


def unpack(data: bytes, count: int, width: int) -> Residues:
    """Return `count` residues; raises `CodecError` for another length, and for a last byte not filled with zeros.

    >>> unpack(bytes.fromhex("123456"), 2, 12)
    array([ 291, 1110], dtype=uint16)
    """
    check(data, count, width)
    if width <= 8:
        return bits.unpack(data, count, width)
    packed = np.zeros((-(-count // 8), width), np.uint8)
    packed.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    residues = np.empty((len(packed), 8), np.uint16)
    for lane, columns, spare in _lanes(width):
        word = np.zeros(len(packed), np.uint32)
        for column in columns:
            word <<= 8
            word |= packed[:, column]
        word >>= spare
        word &= (1 << width) - 1
        residues[:, lane] = word
    return residues.reshape(-1)[:count]


def _lanes(width: int) -> Iterator[tuple[int, range, int]]:
    """Yield of each of the eight residues that fill `width` bytes its bytes, and the bits behind it in the last."""
    for lane in range(8):
        end = (lane + 1) * width
        columns = range(lane * width // 8, -(-end // 8))
        yield lane, columns, 8 * columns.stop - end
