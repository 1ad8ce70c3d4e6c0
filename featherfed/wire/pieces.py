"""Bytes of a transfer as they came: they are put together once, when they are wanted."""


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
        self._parts = [begun] if begun else []
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
        self._parts.append(data)
        self._size += len(data)

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
