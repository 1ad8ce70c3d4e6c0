"""The WebSocket frame around a message (RFC 6455, section 5.2): binary, whole, and what it adds in bytes.

The library makes and parses frames of all kinds; here is the one kind that messages travel in, for the places where
they come and go by the thousand. Over a connection in memory (`bandwidth_sim`) they pass as `Framed`, and no frame is
made or parsed: what counts bytes or cuts them sees those that the frame has.
"""

from collections.abc import Callable

BINARY = 0x82
"""The first byte: the last fragment of a binary message."""
MASK_BYTES = 4


def length_bytes(num_bytes: int) -> int:
    """Return how many bytes say a message's length, beside the seven bits that each header has for it."""
    return 0 if num_bytes < 126 else 2 if num_bytes < 1 << 16 else 8


def framed_bytes(num_bytes: int, *, masked: bool) -> int:
    """Return the size of the frame around a message of so many bytes.

    >>> framed_bytes(125, masked=False), framed_bytes(126, masked=True)
    (127, 134)
    """
    return 2 + length_bytes(num_bytes) + (MASK_BYTES if masked else 0) + num_bytes


def unmasked_frame(message: bytes) -> bytes:
    """Return the frame that a server sends a message in."""
    size = len(message)
    if size < 126:
        return bytes((BINARY, size)) + message
    if size < 1 << 16:
        return bytes((BINARY, 126)) + size.to_bytes(2, "big") + message
    return bytes((BINARY, 127)) + size.to_bytes(8, "big") + message


def masked_frame(message: bytes) -> bytes:
    """Return a frame that a phone may send a message in: with a mask of zeros, which RFC 6455 allows."""
    frame = unmasked_frame(message)
    head = len(frame) - len(message)
    return bytes((frame[0], frame[1] | 0x80)) + frame[2:head] + bytes(MASK_BYTES) + message


Unmask = Callable[[bytes | memoryview, bytes | memoryview], bytes]
"""Takes a mask of four bytes off, or puts it on."""


def sole_message(data: bytes | memoryview, unmask: Unmask | None) -> bytes | None:
    """Return the message whose frame is all of `data`; None for a part of one, several, and frames of other kinds.

    `unmask` None: frames come without a mask.

    >>> sole_message(unmasked_frame(b"abc"), None), sole_message(unmasked_frame(b"abc")[:-1], None)
    (b'abc', None)
    """
    size, head = len(data), 2
    if size < head or data[0] != BINARY:
        return None
    length = data[1] if unmask is None else data[1] - 0x80
    if not 0 <= length < 0x80:
        # With a mask where there should be none, or without.
        return None
    if length > 125:
        head += 2 if length == 126 else 8
        length = int.from_bytes(data[2:head], "big")
    if unmask is None:
        return bytes(data[head:]) if size == head + length else None
    head += MASK_BYTES
    return unmask(data[head:], data[head - MASK_BYTES : head]) if size == head + length else None


class Framed:
    """A message in its frame, as a transport takes it that hands on whole what was written whole."""

    __slots__ = ("masked", "message", "num_bytes")

    def __init__(self, message: bytes, *, masked: bool) -> None:
        self.message, self.masked = message, masked
        self.num_bytes = framed_bytes(len(message), masked=masked)

    def __len__(self) -> int:
        return self.num_bytes

    def __bytes__(self) -> bytes:
        return (masked_frame if self.masked else unmasked_frame)(self.message)

    def held_of(self, received: int) -> int:
        """Return how many of its first bytes the library's parser holds, which takes each field once it is whole."""
        for field in (2, length_bytes(len(self.message)), MASK_BYTES if self.masked else 0):
            if received < field:
                break
            received -= field
        return received
