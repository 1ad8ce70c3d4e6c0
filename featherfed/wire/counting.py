"""Bytes as the socket carries them: counted where they are handed to the transport and taken from it.

A connection class of the websockets library is mixed with `CountsBytes`; what it counts includes the HTTP upgrade,
frame headers, masks, pings and closes, and excludes TLS records, TCP and IP.
"""

from typing import Any


class CountingTransport:
    """A transport that adds up what is written to it and passes everything else on."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.bytes_written = 0

    def write(self, data: Any) -> None:
        """Count, then write."""
        self.bytes_written += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CountsBytes:
    """A mixin for `asyncio.Protocol` classes: `bytes_received` and `bytes_sent` of the whole connection."""

    bytes_received = 0
    _counting: CountingTransport | None = None

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the socket so far."""
        return self._counting.bytes_written if self._counting else 0

    def connection_made(self, transport: Any) -> None:
        """Put the counter in front of the transport."""
        self._counting = CountingTransport(transport)
        super().connection_made(self._counting)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Count, then parse."""
        self.bytes_received += len(data)
        super().data_received(data)  # type: ignore[misc]
