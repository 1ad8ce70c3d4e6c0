"""How many bytes to put into one message of a transfer: fewer where the link breaks, or where others wait behind them.

A chunk that a broken link cuts is sent again whole, half of it in vain on average; and every chunk costs a header and
an acknowledgement. With h bytes around a chunk of c, and D bytes carried from one break to the next, each byte of
payload costs h/c + c/(2D) more, which is least at

    c = √(2hD)

Young's interval between checkpoints (Young 1974, "A first order approximation to the optimum checkpoint interval"). A
link that drops every 20 kB gets chunks of 1.3 kB and loses 6 % of its bytes, not 40 % as with chunks of 16 KiB; and
chunks that are larger than what a connection lives to carry would never arrive.

D is what was carried over how often it broke. Before anything is known of a link a hundredth of a break in 10 kB is
taken for granted: chunks begin with 9 kB, which cost 0.4 % of headers where the link is good and little at the first
break where it is not. Links break with time: one that is seen to carry more than 100 kB a second is granted a tenth of
a second of it in place of the 10 kB, up to 1 MB, until it breaks. Chunks grow from one to the next; those that were
sent and have not arrived yet count as carried: if they break off, the one behind them is not on the link at all.

What else waits for the link, a Cancel or a ping, waits behind a chunk that has begun. So a chunk of a model has no more
bytes than the link is seen to carry in a quarter of a second, or 16 KiB. Behind a phone's own little waits: its chunks
may have 64 KiB on any link, and more where that is a quarter of a second.
"""

import math

LEAST_BYTES = 1024
AROUND_BYTES = 40
"""WebSocket header and mask, message header and acknowledgement of one chunk."""
BEHIND_S = 0.25
"""How long a message may wait behind a chunk, on links that carry `BEHIND_BYTES` in less."""
BEHIND_BYTES = 16 * 1024
"""What may be in a chunk whatever the link is like: few on any link that carries models."""
BEHIND_UP_BYTES = 64 * 1024
"""The same of a phone's update."""
GRANTED_BREAKS = 0.01
GRANTED_BYTES, GRANTED_MOST_BYTES, GRANTED_S = 10_000.0, 1_000_000.0, 0.1
"""In so many bytes, or seconds of what the link carries, so much of a break is taken for granted."""
LOOK_S = 0.01
"""What left for the link within so long says how fast it is."""


class ChunkSizer:
    """Learns from the breaks of one phone's transfers in one direction.

    >>> sizer = ChunkSizer()
    >>> sizer.chunk_bytes(most=65536), sizer.chunk_bytes(most=65536, ahead=100_000)
    (8944, 29664)
    >>> sizer.carried(15_000)
    >>> sizer.broke()
    >>> sizer.chunk_bytes(most=65536)
    1593
    """

    __slots__ = ("_breaks", "_carried", "_granted", "_most")

    def __init__(self) -> None:
        self._carried, self._granted = 0.0, GRANTED_BYTES
        self._breaks = GRANTED_BREAKS
        self._most = 0

    def chunk_bytes(self, most: int, ahead: int = 0, *, bytes_per_s: float = 0.0) -> int:
        """Return the size of the next chunk; `most` is what the link and the other end allow.

        `ahead`: how many bytes of the transfer were sent before it, and have not been noted as carried. `bytes_per_s`:
        how much the link is seen to carry (0: not seen yet).
        """
        self._most = most
        if self._breaks < 1:
            self._granted = max(self._granted, min(GRANTED_S * bytes_per_s, GRANTED_MOST_BYTES))
        carried = self._granted + self._carried + ahead
        return min(most, int(max(LEAST_BYTES, math.sqrt(2 * AROUND_BYTES * carried / self._breaks))))

    def carried(self, num_bytes: int) -> None:
        """Note bytes that arrived."""
        self._carried += num_bytes

    def broke(self) -> None:
        """Note that a connection ended within a transfer: half a chunk was under way."""
        self._carried += self.chunk_bytes(self._most) / 2
        self._breaks += 1
        self._granted = GRANTED_BYTES


def behind_bytes(gone: int, seconds: float, least: int = BEHIND_BYTES) -> int:
    """Return how many bytes a message may have that others wait behind; `gone` have left for the link in `seconds`.

    >>> behind_bytes(0, 0.0), behind_bytes(40_000, 0.1), behind_bytes(1_000_000, 5.0)
    (16384, 40000, 50000)
    """
    return max(least, int(gone * BEHIND_S / max(seconds, BEHIND_S)))


def seen_bytes_per_s(gone: int, seconds: float) -> float:
    """Return how much a link is seen to carry of which `gone` bytes have left in `seconds`."""
    return gone / max(seconds, LOOK_S)
