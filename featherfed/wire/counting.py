"""Bytes as the socket carries them: counted where they are handed to the transport and taken from it.

A connection class of the websockets library is mixed with `CountsBytes`; what it counts includes the HTTP upgrade,
frame headers, masks, pings and closes, and excludes TLS records, TCP and IP.
"""

import contextlib
import struct
import sys
from typing import Any

from featherfed.wire.liveness import Pulse

if sys.platform == "linux":
    import fcntl
    import termios


class CountingTransport:
    """A transport that adds up what is written to it and passes everything else on.

    After its end it takes everything and does nothing: whoever still writes or closes will hear of the end elsewhere.
    asyncio's own would fail there, where it was closed with bytes unsent.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.bytes_written = 0
        self.ended = False
        """Whether the protocol has been told that the connection is lost."""
        self._joining = 0
        self._joined = bytearray()

    def join(self, writes: int) -> None:
        """Let so many writes from now on leave as one: one segment of TCP, and one acknowledgement of it."""
        self._joining = writes

    def write(self, data: Any) -> None:
        """Count, then write."""
        if self.ended:
            return
        self.bytes_written += len(data)
        if self._joining > 1 or self._joined:
            self._joining -= 1
            self._joined += data
            if self._joining < 1:
                self._flush()
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Return whether the connection is closing or closed: asked for each message."""
        return bool(self._transport.is_closing())

    def write_eof(self) -> None:
        """Write what waits, then the end."""
        if not self.ended:
            self._flush()
            self._transport.write_eof()

    def close(self) -> None:
        """Write what waits, then close."""
        if not self.ended:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        if not self.ended:
            self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the socket."""
        return 0 if self.ended else len(self._joined) + int(self._transport.get_write_buffer_size())

    def _flush(self) -> None:
        joined, self._joined, self._joining = self._joined, bytearray(), 0
        if joined:
            self._transport.write(joined)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CountsBytes:
    """A mixin for `asyncio.Protocol` classes: `bytes_received` and `bytes_sent` of the whole connection."""

    bytes_received = 0
    bytes_cut = 0
    """Received of a frame whose end has not come: noted at once, the library drops them when the connection ends."""
    _counting: CountingTransport | None = None

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the socket so far."""
        return self._counting.bytes_written if self._counting else 0

    def join_writes(self, writes: int) -> None:
        """Let so many writes from now on leave as one."""
        if self._counting is not None:
            self._counting.join(writes)

    @property
    def bytes_waiting(self) -> int:
        """Bytes sent that the other end's kernel has not acknowledged.

        Where this kernel does not tell what is unacknowledged, what it has taken does not count.
        """
        if self._counting is None:
            return 0
        waiting = self._counting.get_write_buffer_size()
        raw = self._counting.get_extra_info("socket")
        if sys.platform == "linux" and raw is not None and raw.fileno() >= 0:
            # SIOCOUTQ (tcp(7)), which has the number of TIOCOUTQ.
            with contextlib.suppress(OSError):
                waiting += struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return waiting

    def beats(self, pulse: Pulse, now_s: float) -> bool:
        """Return whether the pulse finds this connection alive."""
        return pulse.beats(received=self.bytes_received, sent=self.bytes_sent, waiting=self.bytes_waiting, now_s=now_s)

    def connection_made(self, transport: Any) -> None:
        """Put the counter in front of the transport."""
        self._counting = CountingTransport(transport)
        super().connection_made(self._counting)  # type: ignore[misc]

    def connection_lost(self, error: Exception | None) -> None:
        """Let the transport rest, then end."""
        if self._counting is not None:
            self._counting.ended = True
        super().connection_lost(error)  # type: ignore[misc]

    def data_received(self, data: bytes | memoryview) -> None:
        """Count, then parse."""
        self.bytes_received += len(data)
        super().data_received(data)  # type: ignore[misc]
        self.bytes_cut = len(self.protocol.reader.buffer)  # type: ignore[attr-defined]
