"""The WebSocket frame around a message (RFC 6455, section 5.2): binary, whole, and what it adds in bytes.

The library makes and parses frames of all kinds; here is the one kind that messages travel in, for the places where
they are sent by the thousand.
"""

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
