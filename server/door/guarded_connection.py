"""A phone's WebSocket connection as the server holds it: its bytes counted, its peer held to the limits.

Most of them are those that a phone holds its server to: `featherfed/wire/guarding.py`. Here is what only a server
needs: a stranger's smaller messages, who waits at the door, and HTTP answers.
"""

import asyncio
import http
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from featherfed.server.door.limits import FRAME_BYTES, HANDSHAKE_BYTES, HELLO_BYTES, SMALL_PER_TASK, WAITING_FRAMES
from featherfed.server.door.tokens import Token
from featherfed.wire.closing import Close
from featherfed.wire.framing import unmasked_frame
from featherfed.wire.guarding import NO_FAULTS, HeldToLimits
from featherfed.wire.limits import SMALL_BYTES


class Door(Protocol):
    """Where connections come in."""

    def met(self, connection: "GuardedConnection") -> None:
        """Note that a connection is past TCP and TLS."""

    def admit(self, connection: "GuardedConnection") -> None:
        """Note that a connection is a phone's."""


class GuardedConnection(HeldToLimits, ServerConnection):
    """The library's server connection that counts its socket's bytes and ends what exceeds a limit."""

    handshake_limit = ("HTTP request", HANDSHAKE_BYTES)
    token: Token | None = None
    """What opened it, where tokens are in use."""
    frame_began_s: float | None = None
    """When the first bytes came of the message that is coming or waits to be received, by the loop's clock."""

    def __init__(self, protocol: ServerProtocol, *arguments: Any, door: Door | None = None, **settings: Any) -> None:
        """`door` is told of the connection; everything else is the library's."""
        protocol.max_message_size = HELLO_BYTES
        super().__init__(protocol, *arguments, **settings)
        self._door = door

    @property
    def upgraded(self) -> bool:
        """Whether the request has been answered."""
        return self.protocol.state is not CONNECTING

    def admit(self) -> None:
        """Grant what a phone needs; until then the peer is a stranger."""
        self.protocol.max_message_size = FRAME_BYTES
        if self._door is not None:
            self._door.admit(self)

    def expect_update(self) -> None:
        """Grant what a phone needs to answer a task."""
        self.earn(SMALL_PER_TASK)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and tell the door."""
        super().connection_made(transport)
        if self._door is not None:
            self._door.met(self)

    def data_received(self, data: bytes | memoryview) -> None:
        """Note when a message began, and parse."""
        if self.frame_began_s is None:
            self.frame_began_s = self.loop.time()
        super().data_received(data)
        if not self.bytes_cut and not self.recv_messages.frames:
            # That was no message: a pong, say.
            self.frame_began_s = None

    def process_event(self, event: Frame | Request | Response) -> None:
        """Pass a frame on, unless too many small ones wait."""
        small = isinstance(event, Frame) and len(event.data) < SMALL_BYTES
        if small and self._small_waiting() >= WAITING_FRAMES:
            self.turn_out(
                Close.TOO_FAST,
                f"more than {WAITING_FRAMES} frames of less than {SMALL_BYTES} bytes wait to be handled",
            )
            return
        super().process_event(event)

    def _small_waiting(self) -> int:
        waiting = self.recv_messages.frames
        if len(waiting) < WAITING_FRAMES:
            return 0
        return sum(len(frame.data) < SMALL_BYTES for frame in waiting.queue)

    async def send_frame(self, frame: bytes) -> None:
        """Send a message as the library's `send` does, in a fifth of its time where nothing stands in the way.

        No message is fragmented here (docs/PROTOCOL.md), so none is ever under way when another begins. Raises
        `ConnectionClosed` where the connection is lost, or gets lost meanwhile.
        """
        if self.protocol.state is not OPEN:
            await self.send(frame)
            return
        self.transport.write(unmasked_frame(frame))
        if self.paused or self.transport.is_closing():
            await self.drain()

    def turn_out_early(self, code: Close, sentence: str) -> None:
        """Answer with an HTTP status, unless the library has answered already."""
        status = http.HTTPStatus.SERVICE_UNAVAILABLE if code in NO_FAULTS else http.HTTPStatus.BAD_REQUEST
        if not self.protocol.eof_sent:
            self.transport.write(answer(status, sentence))
        self.transport.close()


def say_little(connection: ServerConnection, request: Request, response: Response) -> None:
    """Leave out of an upgrade what RFC 6455 does not ask for: with its date and reason it is half as long again."""
    if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        del response.headers["Date"]
        response.reason_phrase = ""


def answer(status: http.HTTPStatus, sentence: str) -> bytes:
    """Return an HTTP response for a peer that has no WebSocket yet."""
    body = sentence.encode() + b"\n"
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
