"""A phone's WebSocket connection as the server holds it: its bytes counted, its peer held to the limits.

The limits are checked where bytes come from the socket, before anything waits for a handler. Who breaks one is told why
(an HTTP answer before the upgrade, a close code after it), read no further, and cut off a second later.
"""

import asyncio
import http
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from featherfed.errors import RemoteError
from featherfed.server.limits import (
    FRAME_BYTES,
    HANDSHAKE_BYTES,
    HELLO_BYTES,
    READ_BYTES,
    SLICE_BYTES,
    SMALL_BYTES,
    SMALL_PER_S,
    UNREAD_BYTES,
    WAITING_FRAMES,
    Allowance,
)
from featherfed.server.tokens import Token
from featherfed.wire.closing import Close, reason
from featherfed.wire.edge import Edge

LIBRARY_FAULTS = (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG)
"""What the library finds by itself: a bad WebSocket frame, text that is none, a message beyond its limit."""
NO_FAULTS = (Close.TOO_MANY, Close.GOING_AWAY)
"""Why a peer is turned out that has done nothing wrong."""
GOODBYE_S = 1.0
"""How long a peer that is turned out may take to read why; what it still sends resets a connection that is closed."""


class Door(Protocol):
    """Where connections come in."""

    def met(self, connection: "GuardedConnection") -> None:
        """Note that a connection is past TCP and TLS."""

    def admit(self, connection: "GuardedConnection") -> None:
        """Note that a connection is a phone's."""


class GuardedConnection(Edge, ServerConnection):
    """The library's server connection that counts its socket's bytes and ends what exceeds a limit."""

    token: Token | None = None
    """What opened it, where tokens are in use."""
    frame_began_s: float | None = None
    """When the first bytes came of the message that is coming or waits to be received, by the loop's clock."""

    def __init__(self, protocol: ServerProtocol, *arguments: Any, door: Door | None = None, **settings: Any) -> None:
        """`door` is told of the connection; everything else is the library's."""
        protocol.max_message_size = HELLO_BYTES
        super().__init__(protocol, *arguments, **settings)
        self._door = door
        self._allowance = Allowance(self.loop.time())
        self._turned_out: RemoteError | None = None

    def admit(self) -> None:
        """Grant what a phone needs; until then the peer is a stranger."""
        self.protocol.max_message_size = FRAME_BYTES
        if self._door is not None:
            self._door.admit(self)

    def expect_update(self) -> None:
        """Grant what a phone needs to answer a task."""
        self._allowance.grant()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and tell the door."""
        if hasattr(transport, "max_size"):
            # asyncio's own: how much one read may take.
            transport.max_size = READ_BYTES
        super().connection_made(transport)
        if self._door is not None:
            self._door.met(self)

    def data_received(self, data: bytes) -> None:
        """Count and parse, slice by slice, as long as the peer keeps to the limits."""
        if self.frame_began_s is None:
            self.frame_began_s = self.loop.time()
        for start in range(0, len(data), SLICE_BYTES):
            if self._turned_out:
                return
            super().data_received(data[start : start + SLICE_BYTES])
            if self.request is None and self.bytes_received > HANDSHAKE_BYTES:
                self.turn_out(Close.PROTOCOL, f"HTTP request exceeds limit of {HANDSHAKE_BYTES} bytes")
            elif self.transport.get_write_buffer_size() > UNREAD_BYTES:
                # It does not read: no close frame would arrive.
                self._turned_out = fault(Close.TOO_FAST, f"left more than {UNREAD_BYTES} bytes unread")
                self.transport.abort()
        if not self.bytes_cut and not self.recv_messages.frames:
            # That was no message: a pong, say.
            self.frame_began_s = None

    def process_event(self, event: Frame | Request | Response) -> None:
        """Pass a frame on, unless it is one too many."""
        if self._turned_out:
            return
        if isinstance(event, Frame):
            if event.opcode is Opcode.CONT or not event.fin:
                self.turn_out(Close.PROTOCOL, "fragmented message; each message is one frame")
                return
            if len(event.data) < SMALL_BYTES:
                if not self._allowance.take(self.loop.time()):
                    self.turn_out(
                        Close.TOO_FAST, f"more than {SMALL_PER_S:g} frames a second of less than {SMALL_BYTES} bytes"
                    )
                    return
                if self._small_waiting() >= WAITING_FRAMES:
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
        """Send a message as the library's `send` does, in a third of its time where nothing stands in the way.

        No message is fragmented here (docs/PROTOCOL.md), so none is ever under way when another begins. Raises
        `ConnectionClosed` where the connection is lost, or gets lost meanwhile.
        """
        if self.protocol.state is not OPEN:
            await self.send(frame)
            return
        self.protocol.send_binary(frame)
        self.send_data()
        await self.drain()

    def fault(self, closed: ConnectionClosed) -> RemoteError | None:
        """Return for what fault of the peer this side ended the connection, if it did."""
        if self._turned_out is not None:
            return None if self._turned_out.code in NO_FAULTS else self._turned_out
        if closed.sent is None or closed.rcvd_then_sent or closed.sent.code not in LIBRARY_FAULTS:
            return None
        return fault(closed.sent.code, closed.sent.reason)

    def turn_out(self, code: Close, sentence: str, *, linger_s: float = GOODBYE_S) -> None:
        """End the connection: say why, read no more, and let nothing hold it open for longer than `linger_s`."""
        if self._turned_out:
            return
        self._turned_out = fault(code, sentence)
        if self.protocol.state is CONNECTING:
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if code in NO_FAULTS else http.HTTPStatus.BAD_REQUEST
            self.transport.write(answer(status, sentence))
            self.transport.close()
            return
        self.protocol.fail(code, reason(sentence))
        self.send_data()
        if not linger_s:
            self.transport.close()
        self.loop.call_later(linger_s or GOODBYE_S, self.transport.abort)


def fault(code: int, sentence: str) -> RemoteError:
    """Return a peer's fault that ends its connection with `code`."""
    error = RemoteError(sentence)
    error.code = code
    return error


def answer(status: http.HTTPStatus, sentence: str) -> bytes:
    """Return an HTTP response for a peer that has no WebSocket yet."""
    body = sentence.encode() + b"\n"
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
