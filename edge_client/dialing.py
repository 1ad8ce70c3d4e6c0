"""The way out of the phone: where a link goes in.

A dialer gives a connected socket, or None to let the event loop connect by itself. `bandwidth_sim.relay.LinkedDialer`
is one whose sockets run over an emulated link.
"""

import socket
from typing import Protocol

PING_S = 20.0
CHUNK_BYTES = 64 * 1024


class Dialer(Protocol):
    """Connects to servers, and knows what fits its link."""

    async def connect(self, host: str, port: int) -> socket.socket | None:
        """Return a connected non-blocking socket; raises OSError where the target refuses."""

    @property
    def chunk_bytes(self) -> int:
        """How much to send in one message."""

    def keepalive(self) -> tuple[float, float]:
        """Return ping interval and timeout in seconds."""


class DirectDialer:
    """No link: as fast as the machine."""

    async def connect(self, host: str, port: int) -> socket.socket | None:
        """Leave it to the event loop."""
        return None

    @property
    def chunk_bytes(self) -> int:
        """The largest that the protocol allows."""
        return CHUNK_BYTES

    def keepalive(self) -> tuple[float, float]:
        """Return the library's own defaults."""
        return PING_S, PING_S
