"""The way out of the phone: where a link goes in.

A dialer gives a connected socket, or None to let the event loop connect by itself. Over an emulated link it is
`featherfed.bandwidth_sim.relay.LinkedDialer`, and `featherfed.bandwidth_sim.virtual.VirtualDialer` in virtual time.
"""

import socket
import ssl
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from featherfed.bandwidth_sim.virtual_network import VirtualSocket
from featherfed.errors import ConfigError
from featherfed.wire.address import is_host, is_loopback
from featherfed.wire.certificates import trusting
from featherfed.wire.messages import MAX_CHUNK_BYTES

PING_S = 20.0


class Dialer(Protocol):
    """Connects to servers, and knows what fits its link."""

    async def connect(self, host: str, port: int) -> socket.socket | VirtualSocket | None:
        """Return a connected non-blocking socket, or its stand-in; raises OSError where none listens."""

    @property
    def chunk_bytes(self) -> int:
        """How much to send in one message at most."""

    def keepalive(self) -> tuple[float, float]:
        """Return ping interval and timeout in seconds."""

    @property
    def answer_s(self) -> float:
        """How many seconds a full link may take for a ping and its pong."""


class DirectDialer:
    """No link: as fast as the machine."""

    async def connect(self, host: str, port: int) -> socket.socket | None:
        """Leave it to the event loop."""
        return None

    @property
    def chunk_bytes(self) -> int:
        """The largest that the protocol allows."""
        return MAX_CHUNK_BYTES

    def keepalive(self) -> tuple[float, float]:
        """Return the library's own defaults."""
        return PING_S, PING_S

    @property
    def answer_s(self) -> float:
        """Nothing to speak of."""
        return 0.0


def check_address(server: str, flag: str) -> SplitResult:
    """Return the parts of a server's address; raises `ConfigError` if it cannot be one."""
    try:
        url = urlsplit(server)
        # The second finds what the library would refuse later: a fragment, a name that DNS cannot hold.
        valid = url.port != 0 and is_host(parse_uri(server).host)
    except (ValueError, InvalidURI):
        valid = False
    if not valid:
        secure = server.startswith("https://")
        web = secure or server.startswith("http://")
        hint = f"; phones speak WebSocket, so begin with {'wss' if secure else 'ws'}:// there" if web else ""
        raise ConfigError(f"{flag} {server!r} is not an address like ws://127.0.0.1:8765{hint}")
    if url.username is not None or url.password is not None:
        raise ConfigError(f"{flag} names a user before {url.hostname}; a phone shows a token, which --token gives")
    return url


def check_secrecy(url: SplitResult, token: str | None, flag: str, *, insecure: bool) -> None:
    """Raise `ConfigError` where a token would travel in the clear, and nobody has said that it may."""
    if token and url.scheme == "ws" and not (insecure or is_loopback(url.hostname or "")):
        raise ConfigError(
            f"{flag} would travel in the clear to {url.hostname}; use a wss:// address, or say --insecure"
        )


def trust(server: str, ca: str | None) -> ssl.SSLContext | None:
    """Return whose certificates are believed at a wss:// address: the system's authorities, or those of a file."""
    if urlsplit(server).scheme != "wss":
        return None
    return trusting(ca)
