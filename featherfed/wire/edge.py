"""The edge of a connection: whatever happens on a connection ends that connection, and nothing else.

This is the one rule, for phones, servers and gateways alike. A socket that is reset, half-closed or timed out, TLS that
breaks, a write that fails: whoever holds a connection hears of each as one thing, the library's `ConnectionClosed`,
with the fault as its cause. An `OSError` that comes from anywhere else is therefore this machine's own: a disk, a
database, a descriptor too many.

The library keeps to it in `recv`, `send`, `ping` and `close`, but not where a program waits for the socket by itself:
`drain` lets the raw error out. Every way to send comes through here. That a transport takes what comes after its end
is `CountingTransport`'s part (featherfed/wire/counting.py).
"""

import logging

from featherfed.wire.counting import CountsBytes

NO_NEWS = ("socket.send() raised exception.", "SSL connection is closed")
"""What asyncio logs of writes to a connection that is ending: its end says so, and a terminal need not for each."""
logging.getLogger("asyncio").addFilter(lambda record: record.msg not in NO_NEWS)


class Edge(CountsBytes):
    """A mixin for the library's connection classes, between them and whoever sends."""

    async def send_frame(self, message: bytes) -> None:
        """Send a message as the library's `send` does, in a fifth of its time where nothing stands in the way.

        A frame that must be masked is the library's, unless it passes as it is, without a frame.

        No message is fragmented here (docs/PROTOCOL.md), so none is ever under way when another begins. Raises
        `ConnectionClosed` where the connection is lost, or gets lost meanwhile.
        """
        if not self.is_open or not self.writes_messages:
            await self.send(message)  # type: ignore[attr-defined]
            return
        self.write_message(message)
        if self.paused or self.transport.is_closing():  # type: ignore[attr-defined]
            await self.drain()

    async def drain(self) -> None:
        """Return when the socket takes more; raises `ConnectionClosed` where the connection is lost before that."""
        try:
            await super().drain()  # type: ignore[misc]
        except Exception as fault:
            raise await self._ended_by(fault) from fault

    async def _ended_by(self, fault: Exception) -> Exception:
        """End the connection for a fault that happened on it; return what whoever used it is told."""
        self.set_connection_exc(fault)  # type: ignore[attr-defined]
        self.transport.abort()  # type: ignore[attr-defined]
        # Only then does the protocol know how it was closed.
        await self.wait_closed()  # type: ignore[attr-defined]
        closed: Exception = self.close_exc  # type: ignore[attr-defined]
        return closed
