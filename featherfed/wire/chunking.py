"""How many bytes to put into one message of a transfer: as many as the link carries in a second, fewer where it breaks.

A chunk that a broken link cuts is sent again whole, half of it in vain on average; and every chunk costs a header and
an acknowledgement. With h bytes around a chunk of c, and D bytes carried from one break to the next, each byte of
payload costs h/c + c/(2D) more, which is least at

    c = √(2hD)

Young's interval between checkpoints (Young 1974, "A first order approximation to the optimum checkpoint interval"). A
link that drops every 20 kB gets chunks of 1.3 kB and loses 6 % of its bytes, not 40 % as with chunks of 16 KiB; and
chunks that are larger than what a connection lives to carry would never arrive.

D is what was carried over how often it broke. Before anything is known of a link a tenth of a break in 100 kB is taken
for granted: that gives chunks of 9 kB, which cost 0.4 % of headers where the link is good and little at the first
break where it is not, and grow to 64 KiB after 5 MB without a break.
"""

import math

LEAST_BYTES = 1024
AROUND_BYTES = 40
"""WebSocket header and mask, message header and acknowledgement of one chunk."""


class ChunkSizer:
    """Learns from the breaks of one phone's transfers in one direction.

    >>> sizer = ChunkSizer()
    >>> sizer.chunk_bytes(most=65536)
    8944
    >>> sizer.carried(15_000)
    >>> sizer.broke()
    >>> sizer.chunk_bytes(most=65536)
    2947
    """

    def __init__(self) -> None:
        self._carried = 100_000.0
        self._breaks = 0.1
        self._last = 0

    def chunk_bytes(self, most: int) -> int:
        """Return the size for the next chunks; `most` is what the link and the other end allow."""
        size = max(LEAST_BYTES, math.sqrt(2 * AROUND_BYTES * self._carried / self._breaks))
        self._last = min(most, int(size))
        return self._last

    def carried(self, num_bytes: int) -> None:
        """Note bytes that arrived."""
        self._carried += num_bytes

    def broke(self) -> None:
        """Note that a connection ended within a transfer: half a chunk was under way."""
        self._carried += self._last / 2
        self._breaks += 1
