"""Residues modulo 2^r: packed without gaps, r bits each, highest bit first, for r up to 16."""

from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.codec import bits, blocks
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
    # In runs, since each bit is a byte in between; all but the last end on a whole byte.
    return b"".join(_packed(residues[place], width) for place, _ in blocks.runs(len(residues)))


def _packed(residues: Residues, width: int) -> bytes:
    spread = np.unpackbits(residues.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return np.packbits(spread[:, 16 - width :]).tobytes()


def unpack(data: bytes, count: int, width: int) -> Residues:
    """Return `count` residues; raises `CodecError` for another length, and for a last byte not filled with zeros.

    >>> unpack(bytes.fromhex("123456"), 2, 12)
    array([ 291, 1110], dtype=uint16)
    """
    if len(data) != (wanted := bits.packed_bytes(count, width)):
        raise CodecError(f"{count} residues of {width} bits are {wanted} bytes, and {len(data)} came")
    spare = 8 * wanted - count * width
    if spare and data[-1] & ((1 << spare) - 1):
        raise CodecError(f"the last {spare} bits of {count} residues of {width} bits are {data[-1]:08b}, and not zeros")
    if width <= 8:
        return bits.unpack(data, count, width)
    residues = np.empty(count, np.uint16)
    raw = np.frombuffer(data, np.uint8)
    for place, _ in blocks.runs(count):
        run = residues[place]
        some = np.unpackbits(raw[place.start * width // 8 :], count=len(run) * width).reshape(-1, width)
        spread = np.zeros((len(run), 16), np.uint8)
        spread[:, 16 - width :] = some
        run[...] = np.packbits(spread, axis=1).view(">u2")[:, 0]
    return residues
