"""What a peer is granted, whichever end it is (docs/RELIABILITY.md, "Limits" and "A phone's own limits").

`server/door/limits.py` and `edge_client/limits.py` have what only one of the ends needs. Together they bound what a
connection can make its other end hold: two whole messages, after which reading stops, what one read brought
(`READ_BYTES`), and `UNREAD_BYTES` out.
"""

from featherfed.wire.chunking import LEAST_BYTES
from featherfed.wire.messages import MAX_FRAME_BYTES

READ_BYTES = 64 * 1024
"""Of one read from a socket; asyncio would take 256 KiB of each peer before it does anything else.

Within TLS it does, and twice that where it has read on while the peer's frames waited.
"""
SLICE_BYTES = 16 * 1024
"""What comes from the socket is parsed in such slices, so that thousands of empty frames never are objects at once."""
UNREAD_BYTES = MAX_FRAME_BYTES + 64 * 1024
"""Sent and not taken by the peer: one that pings and never reads would collect pongs without end."""
READ_AHEAD_FRAMES = 1
"""Messages that may wait to be handled: with one more, reading stops."""
SMALL_BYTES = LEAST_BYTES
"""A frame below this is small: the first and last of a transfer, its acknowledgements, tasks, pings and pongs."""
SMALL_PER_S = 100.0
SMALL_BURST = 200
"""Small frames in a row, and then a second: each may cost a row in the database and a write to the disk."""
EARNED_MOST = 8192
"""Small frames that may be owed at once: the Acks of as many of the smallest chunks as lie in 8 MB of buffers."""


class Allowance:
    """A token bucket for small frames: `SMALL_BURST` at once, `SMALL_PER_S` in the long run, and what was earned."""

    def __init__(self, now_s: float) -> None:
        self._left = float(SMALL_BURST)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Return whether one more small frame is within the limit.

        >>> allowance = Allowance(0.0)
        >>> sum(allowance.take(0.0) for _ in range(1000)), sum(allowance.take(1.0) for _ in range(1000))
        (200, 100)
        """
        if self._left < SMALL_BURST:
            self._left = min(SMALL_BURST, self._left + (now_s - self._at_s) * SMALL_PER_S)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self, frames: int) -> None:
        """Grant so many more, which answer what this end has sent: they may come as fast as it was.

        >>> allowance = Allowance(0.0)
        >>> allowance.earn(50)
        >>> sum(allowance.take(0.0) for _ in range(1000))
        250
        """
        self._left = max(self._left, min(EARNED_MOST, self._left + frames))
