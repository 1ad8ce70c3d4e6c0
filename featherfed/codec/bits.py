"""Symbols of 0 to 8 bits, packed without gaps."""

import functools

import numpy as np

from featherfed.codec import blocks
from featherfed.codec.space import F32
from featherfed.codec.stage import U8


def packed_bytes(size: int, width: int) -> int:
    """Return the bytes of `size` symbols of `width` bits."""
    return -(-size * width // 8)


@functools.cache
def symbols_of_bytes(width: int) -> U8:
    """Return the symbols of 1, 2, 4 or 8 bits that each byte holds, highest first, (256, symbols a byte)."""
    return unpack(bytes(range(256)), 256 * 8 // width, width).reshape(256, 8 // width)


def look_up_packed(data: bytes, size: int, width: int, table: F32) -> F32:
    """Return what `table` has for each of `size` packed symbols of `width` bits, (size,) float32."""
    if 8 % width:
        return blocks.look_up(table, unpack(data, size, width))
    # A byte's symbols at once: a quarter of the time that unpacking and looking up one by one takes.
    rows, raw = table[symbols_of_bytes(width)], np.frombuffer(data, np.uint8)
    values = np.empty((len(raw), 8 // width), np.float32)
    for place, _ in blocks.runs(len(raw)):
        rows.take(raw[place], axis=0, out=values[place], mode="clip")
    return values.reshape(-1)[:size]


def pack(symbols: U8, width: int) -> bytes:
    """Return the symbols' low `width` bits, highest first.

    >>> pack(np.array([1, 2, 3], np.uint8), 2).hex()
    '6c'
    """
    if width == 0:
        return b""
    if width == 1:
        return np.packbits(symbols).tobytes()
    if width == 8:
        return symbols.tobytes()
    if width in (2, 4):
        packed = _groups(symbols, 8 // width)
        while width < 8:
            pairs = packed.view("<u2")
            packed = (pairs << width | pairs >> 8).astype(np.uint8)
            width *= 2
        return packed.tobytes()
    # Eight symbols fill `width` bytes: as the bytes of one number, neighbours close up, then pairs, then fours.
    words = _groups(symbols, 8).view(">u8").astype(np.uint64)
    for lane, low in _LANES:
        high = words >> lane
        high &= low
        high <<= np.uint64(int(lane) * width // 8)
        words &= low
        words |= high
    packed = words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
    return packed.tobytes()[: packed_bytes(len(symbols), width)]


_LANES = tuple((np.uint64(lane), np.uint64(((1 << 64) - 1) // ((1 << lane) + 1))) for lane in (8, 16, 32))
"""How far apart neighbours lie, and the bits of every second one."""


def _groups(symbols: U8, each: int) -> U8:
    """Return the symbols and zeros, so that groups of so many are whole."""
    if len(symbols) % each == 0:
        return np.ascontiguousarray(symbols, np.uint8)
    padded = np.zeros(-(-len(symbols) // each) * each, np.uint8)
    padded[: len(symbols)] = symbols
    return padded


def unpack(data: bytes, size: int, width: int) -> U8:
    """Return `size` symbols of `width` bits."""
    symbols: U8 = unpack_rows(np.frombuffer(data, np.uint8)[None], size, width)[0]
    return symbols


def unpack_rows(rows: U8, size: int, width: int) -> U8:
    """Return `size` symbols of `width` bits of each row of bytes, (rows, bytes) → (rows, size)."""
    if width == 0:
        return np.zeros((len(rows), size), np.uint8)
    if width == 1:
        return np.unpackbits(rows, axis=1, count=size)
    if width == 8:
        return rows[:, :size]
    if width in (2, 4):
        each = 8 // width
        columns = np.empty((*rows.shape, each), np.uint8)
        for column in range(each):
            np.right_shift(rows, 8 - width * (column + 1), out=columns[..., column])
        columns &= (1 << width) - 1
        return columns.reshape(len(rows), -1)[:, :size]
    # Eight symbols fill `width` bytes, which are the low ones of a number.
    groups = -(-size // 8)
    padded = np.zeros((len(rows), groups * width), np.uint8)
    padded[:, : rows.shape[1]] = rows
    wide = np.zeros((len(rows), groups, 8), np.uint8)
    wide[..., 8 - width :] = padded.reshape(len(rows), groups, width)
    words = wide.view(">u8").astype(np.uint64)
    # From the back: the last symbol is in the lowest bits.
    shifts = np.arange(7 * width, -1, -width, dtype=np.uint64)
    spread = words >> shifts
    spread &= np.uint64((1 << width) - 1)
    return spread.astype(np.uint8).reshape(len(rows), -1)[:, :size]
