"""The phone's connection to a server: opened where it was told to, its bytes counted, the server held to the limits."""

import ssl
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import CONNECTING, OPEN

from featherfed.edge_client.dialing import Dialer
from featherfed.edge_client.limits import ANSWER_BYTES
from featherfed.wire.closing import Close, readable
from featherfed.wire.guarding import HeldToLimits
from featherfed.wire.limits import READ_AHEAD_FRAMES
from featherfed.wire.messages import MAX_FRAME_BYTES

OPEN_S = 60.0
"""How long one attempt to connect may take on a slow link."""


class PhoneConnection(HeldToLimits, ClientConnection):
    """The library's client connection that counts its socket's bytes and ends what exceeds a limit."""

    handshake_limit = ("HTTP answer", ANSWER_BYTES)
    open_state = OPEN
    masks = True

    @property
    def upgraded(self) -> bool:
        """Whether there is a WebSocket."""
        return self.protocol.state is not CONNECTING

    def frame_of(self, message: bytes) -> Frame:
        """Return a binary frame."""
        return Frame(Opcode.BINARY, message)

    async def handshake(self, *arguments: Any, **settings: Any) -> None:
        """Upgrade; raises `InvalidHandshake`, with our own reason where it was us who gave up."""
        try:
            await super().handshake(*arguments, **settings)
        except InvalidHandshake as error:
            if self._turned_out is not None:
                raise InvalidMessage(str(self._turned_out)) from error
            raise

    async def close(self, code: int = Close.DONE, reason: str = "") -> None:
        """End the connection; what still comes is dropped."""
        try:
            await super().close(code, reason)
        finally:
            if self.keepalive_task is not None:
                # One that began when the connection was lost already would fail, with a traceback, a heartbeat later.
                self.keepalive_task.cancel()

    def turn_out_early(self, code: Close, sentence: str) -> None:
        """Hang up: a client has no way to say why."""
        self.transport.abort()


class _Connect(connect):
    """The library's, that goes nowhere else.

    A phone's token and updates are for the address that its owner typed: whoever can answer there with a redirect
    could name any other machine.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_connection(
    server: str, dialer: Dialer, *, tls: ssl.SSLContext | None, token: str | None
) -> PhoneConnection:
    """Return a WebSocket to `server`; raises `OSError`, `TimeoutError` or `InvalidHandshake` where there is none."""
    url = urlsplit(server)
    sock = await dialer.connect(url.hostname or "", url.port or (443 if url.scheme == "wss" else 80))
    where: dict[str, Any] = {}
    if sock is not None:
        where["sock"] = sock
    if tls is not None:
        where["ssl"] = tls
    if token is not None:
        where["additional_headers"] = {"Authorization": f"Bearer {token}"}
    connection = await _Connect(
        server,
        create_connection=PhoneConnection,
        compression=None,
        proxy=None,
        user_agent_header=None,
        # No less before Welcome: a task and its model may come right behind it, in the same read.
        max_size=MAX_FRAME_BYTES,
        max_queue=READ_AHEAD_FRAMES,
        open_timeout=OPEN_S,
        # Once the server has said how often it pings: see `Visit._leave_pings_to_the_server`.
        ping_interval=None,
        # A silent connection is found by its own watch: see featherfed/wire/liveness.py.
        ping_timeout=None,
        **where,
    )
    assert isinstance(connection, PhoneConnection), "that class was asked for"
    return connection


def answered(error: InvalidStatus) -> str:
    """Return what a server that does not upgrade has said, in a few words."""
    response = error.response
    place = response.headers.get_all("Location")
    if 300 <= response.status_code < 400 and place:
        return (
            f"the server answered {response.status_code} and points to {readable(place[0])}, where a phone does not"
            " follow"
        )
    return f"the server answered {response.status_code}"
