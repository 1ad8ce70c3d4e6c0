"""Symbols of 0 to 8 bits, packed without gaps."""

import numpy as np

from featherfed.codec.stage import U8

_RUN = 1 << 16
"""Symbols whose bits are worked on at a time: each takes a byte. Whole bytes hold so many symbols of any width."""


def packed_bytes(size: int, width: int) -> int:
    """Return the bytes of `size` symbols of `width` bits."""
    return -(-size * width // 8)


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
        each = 8 // width
        padded = np.zeros(-(-len(symbols) // each) * each, np.uint8)
        padded[: len(symbols)] = symbols
        columns = padded.reshape(-1, each)
        result = columns[:, 0].copy()
        for column in range(1, each):
            result <<= width
            result |= columns[:, column]
        return result.tobytes()
    pieces = []
    for start in range(0, len(symbols), _RUN):
        bits = np.unpackbits(symbols[start : start + _RUN, None], axis=1)[:, 8 - width :]
        pieces.append(np.packbits(bits).tobytes())
    return b"".join(pieces)


def unpack(data: bytes, size: int, width: int) -> U8:
    """Return `size` symbols of `width` bits."""
    if width == 0:
        return np.zeros(size, np.uint8)
    raw = np.frombuffer(data, np.uint8)
    if width == 1:
        return np.unpackbits(raw, count=size)
    if width == 8:
        return raw[:size]
    if width in (2, 4):
        each = 8 // width
        columns = np.empty((len(raw), each), np.uint8)
        for column in range(each):
            np.right_shift(raw, 8 - width * (column + 1), out=columns[:, column])
        columns &= (1 << width) - 1
        return columns.reshape(-1)[:size]
    symbols = np.empty(size, np.uint8)
    for start in range(0, size, _RUN):
        count = min(_RUN, size - start)
        bits = np.unpackbits(raw[start * width // 8 :], count=count * width).reshape(count, width)
        symbols[start : start + count] = np.packbits(np.pad(bits, ((0, 0), (8 - width, 0))), axis=1)[:, 0]
    return symbols
