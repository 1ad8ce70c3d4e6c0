"""Bytes of a transfer as they came: they are put together once, when they are wanted.

Small pieces are put together as they come: an object for each would be many times as large as what it holds, and the
other end says how small they are.
"""

SMALL_BYTES = 1024
"""A piece below that is copied, behind the small ones before it up to `COPY_BYTES`."""
COPY_BYTES = 1 << 20


class Pieces:
    """The first bytes of something, in the pieces in which they came.

    >>> pieces = Pieces(b"ab")
    >>> pieces.put(2, b"cd")
    >>> pieces.put(3, b"xyz")
    >>> len(pieces), bytes(pieces), pieces.same_as(b"abcxyz")
    (6, b'abcxyz', True)
    """

    __slots__ = ("_parts", "_size")

    def __init__(self, begun: bytes = b"") -> None:
        """`begun`: what is there already."""
        self._parts: list[bytes | bytearray] = [begun] if begun else []
        self._size = len(begun)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def put(self, offset: int, data: bytes) -> None:
        """Take bytes from `offset` on, where something ends or lies: what lies there and behind it goes."""
        while self._size > offset:
            last = self._parts.pop()
            self._size -= len(last)
            if self._size < offset:
                self._parts.append(last[: offset - self._size])
                self._size = offset
        self._size += len(data)
        if len(data) >= SMALL_BYTES:
            self._parts.append(data)
        elif self._parts and isinstance(last := self._parts[-1], bytearray) and len(last) < COPY_BYTES:
            last += data
        else:
            self._parts.append(bytearray(data))

    def same_as(self, known: bytes, size: int | None = None) -> bool:
        """Return whether these are the bytes of `known`, or its first `size`, without putting them together."""
        if self._size != (len(known) if size is None else size):
            return False
        offset = 0
        for part in self._parts:
            if not known.startswith(part, offset):
                return False
            offset += len(part)
        return True
