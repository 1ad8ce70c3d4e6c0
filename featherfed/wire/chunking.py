"""How many bytes to put into one message of a transfer: as many as the link carries in a second, fewer where it breaks.

A chunk that a broken link cuts is sent again whole, half of it in vain on average; and every chunk costs a header and
an acknowledgement. With h bytes around a chunk of c, and D bytes carried from one break to the next, each byte of
payload costs h/c + c/(2D) more, which is least at

    c = √(2hD)

Young's interval between checkpoints (Young 1974, "A first order approximation to the optimum checkpoint interval"). A
link that drops every 20 kB gets chunks of 1.3 kB and loses 6 % of its bytes, not 40 % as with chunks of 16 KiB; and
chunks that are larger than what a connection lives to carry would never arrive.
"""

import math

LEAST_BYTES = 1024
AROUND_BYTES = 40
"""WebSocket header and mask, message header and acknowledgement of one chunk."""


class ChunkSizer:
    """Learns from the breaks of one phone's transfers in one direction.

    >>> sizer = ChunkSizer()
    >>> sizer.chunk_bytes(most=65536)
    65536
    >>> sizer.carried(12_000)
    >>> sizer.broke()
    >>> sizer.chunk_bytes(most=65536)
    1892
    """

    def __init__(self) -> None:
        self._carried = 0.0
        self._breaks = 0
        self._last = 0

    def chunk_bytes(self, most: int) -> int:
        """Return the size for the next chunks; `most` is what the link and the other end allow."""
        size = float(most)
        if self._breaks:
            size = min(size, max(LEAST_BYTES, math.sqrt(2 * AROUND_BYTES * self._carried / self._breaks)))
        self._last = int(size)
        return self._last

    def carried(self, num_bytes: int) -> None:
        """Note bytes that arrived."""
        self._carried += num_bytes

    def broke(self) -> None:
        """Note that a connection ended within a transfer: half a chunk was under way."""
        self._carried += self._last / 2
        self._breaks += 1
