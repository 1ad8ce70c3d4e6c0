"""A phone's WebSocket connection as the server holds it: its bytes counted, its peer held to the limits.

Most of them are those that a phone holds its server to: `featherfed/wire/guarding.py`. Here is what only a server
needs: a stranger's smaller messages, who waits at the door, and HTTP answers.
"""

import asyncio
import http
from collections.abc import Sequence
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # compiled, where it can be
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from featherfed.server.door.limits import FRAME_BYTES, HANDSHAKE_BYTES, HELLO_BYTES, SMALL_PER_TASK, WAITING_FRAMES
from featherfed.server.door.tokens import Token
from featherfed.wire.closing import Close
from featherfed.wire.guarding import NO_FAULTS, HeldToLimits
from featherfed.wire.limits import SMALL_BYTES


class Door(Protocol):
    """Where connections come in."""

    def met(self, connection: "GuardedConnection") -> None:
        """Note that a connection is past TCP and TLS."""

    def admit(self, connection: "GuardedConnection") -> None:
        """Note that a connection is a phone's."""


class Listener(Protocol):
    """Who reads a connection's messages."""

    def offered(self, message: bytes) -> bool:
        """Take a binary message at once, and return True; or return False, and receive it in its turn."""

    def wake(self) -> None:
        """Look whether a message waits to be received, or the connection is lost."""


class GuardedConnection(HeldToLimits, ServerConnection):
    """The library's server connection that counts its socket's bytes and ends what exceeds a limit."""

    handshake_limit = ("HTTP request", HANDSHAKE_BYTES)
    open_state = OPEN
    masks = False
    token: Token | None = None
    """What opened it, where tokens are in use."""
    frame_began_s: float | None = None
    """When the first bytes came of the message that is coming or waits to be received, by the loop's clock."""
    listener: Listener | None = None

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

    def unmask(self, data: bytes | memoryview, mask: bytes | memoryview) -> bytes:
        """Return a message without its mask."""
        unmasked: bytes = apply_mask(data, bytes(mask))
        return unmasked

    def frame_of(self, message: bytes) -> Frame:
        """Return a binary frame."""
        return Frame(Opcode.BINARY, message)

    def wholes_received(self, parts: Sequence[Any]) -> None:
        """Note when a message began, and take what came whole."""
        if self.frame_began_s is None:
            self.frame_began_s = self.loop.time()
        super().wholes_received(parts)
        if not self.bytes_cut and not self.recv_messages.frames:
            self.frame_began_s = None

    def is_too_much(self, size: int) -> bool:
        """Whether a frame exceeds a limit, or too many small ones wait."""
        if size < SMALL_BYTES and self._small_waiting() >= WAITING_FRAMES:
            self.turn_out(
                Close.TOO_FAST,
                f"more than {WAITING_FRAMES} frames of less than {SMALL_BYTES} bytes wait to be handled",
            )
            return True
        return super().is_too_much(size)

    def deliver(self, message: bytes) -> None:
        """Offer a message to whoever listens, or let it wait."""
        if self.listener is None or not self.listener.offered(message):
            self._let_wait(self.frame_of(message))

    def hand_on(self, event: Frame | Request | Response) -> None:
        """Do the same with what the library has parsed."""
        if self.listener is not None and isinstance(event, Frame) and event.opcode is Opcode.BINARY:
            self.deliver(bytes(event.data))
        else:
            self._let_wait(event)

    def _let_wait(self, event: Frame | Request | Response) -> None:
        super().hand_on(event)
        if self.listener is not None:
            self.listener.wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End, and tell whoever listens."""
        super().connection_lost(error)
        # Nothing more comes; each would keep the other until the collector finds them.
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.wake()

    def _small_waiting(self) -> int:
        waiting = self.recv_messages.frames
        if len(waiting) < WAITING_FRAMES:
            return 0
        return sum(len(frame.data) < SMALL_BYTES for frame in waiting.queue)

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
