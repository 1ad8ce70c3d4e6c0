"""Either end's connection as it holds its peer to the limits, wherever they are the same for both.

They are checked where bytes come from the socket, before anything waits for a handler. Who breaks one is told why (a
close code), read no further, and cut off a second later. A connection class of the websockets library is mixed with
`HeldToLimits`, which includes `Edge` and `CountsBytes`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from featherfed.errors import RemoteError
from featherfed.wire.closing import Close, reason
from featherfed.wire.edge import Edge
from featherfed.wire.limits import (
    READ_BYTES,
    SLICE_BYTES,
    SMALL_BYTES,
    SMALL_PER_S,
    UNREAD_BYTES,
    Allowance,
)

LIBRARY_FAULTS = (1002, 1007, 1009)
"""What the library finds by itself: a bad WebSocket frame, text that is none, a message beyond its limit."""
NO_FAULTS = (Close.TOO_MANY, Close.GOING_AWAY)
"""Why a peer is turned out that has done nothing wrong."""
CONTINUATION = 0
"""The opcode of a fragment that is not a message's first (RFC 6455, section 5.2)."""
MESSAGES = CONTINUATION, 1, 2
"""Those of what messages are made of: fragments, texts and bytes."""
GOODBYE_S = 1.0
"""How long a peer that is turned out may take to read why; what it still sends resets a connection that is closed."""


class HeldToLimits(Edge):
    """A mixin for the library's connection classes: ends what exceeds a limit."""

    loop: Any
    protocol: Any
    recv_messages: Any
    transport: Any

    handshake_limit: ClassVar[tuple[str, int]]
    """What the peer's half of the HTTP upgrade is called, and the most bytes that it may have."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Take what the library's class takes."""
        super().__init__(*arguments, **settings)
        self._allowance = Allowance(self.loop.time())
        self._turned_out: RemoteError | None = None
        self._leaving = False

    @property
    def upgraded(self) -> bool:
        """Whether the peer's half of the HTTP upgrade is here."""
        raise NotImplementedError

    def earn(self, frames: int) -> None:
        """Let the peer send so many small frames more, which answer what is being sent to it."""
        self._allowance.earn(frames)

    def connection_made(self, transport: Any) -> None:
        """Begin, with small reads."""
        if hasattr(transport, "max_size"):
            # asyncio's own: how much one read may take.
            transport.max_size = READ_BYTES
        super().connection_made(transport)

    def data_received(self, data: bytes | memoryview) -> None:
        """Count and parse, slice by slice, as long as the peer keeps to the limits."""
        slices = [data] if len(data) <= SLICE_BYTES else _slices(memoryview(data))  # without a copy
        what, most = self.handshake_limit
        for each in slices:
            if self._turned_out:
                return
            super().data_received(each)
            if self.bytes_received > most and not self.upgraded:
                self.turn_out(Close.PROTOCOL, f"{what} exceeds limit of {most} bytes")
            else:
                self._mind_unread()

    def wholes_received(self, parts: Sequence[Any]) -> None:
        """Count and take what came whole, as long as the peer keeps to the limits."""
        if self._turned_out:
            return
        super().wholes_received(parts)
        self._mind_unread()

    def _mind_unread(self) -> None:
        if not self._turned_out and self.transport.get_write_buffer_size() > UNREAD_BYTES:
            # It does not read: no close frame would arrive.
            self._turned_out = fault(Close.TOO_FAST, f"left more than {UNREAD_BYTES} bytes unread")
            self.transport.abort()

    def process_event(self, event: Any) -> None:
        """Pass on what the library has parsed, unless it is one too many."""
        if self._turned_out:
            return
        if hasattr(event, "opcode"):
            if self._leaving and event.opcode in MESSAGES:
                return
            if event.opcode == CONTINUATION or not event.fin:
                self.turn_out(Close.PROTOCOL, "fragmented message; each message is one frame")
                return
            if self.is_too_much(len(event.data)):
                return
        self.hand_on(event)

    def message_received(self, message: bytes) -> None:
        """Pass a message on, unless it is one too many."""
        if not (self._turned_out or self._leaving or self.is_too_much(len(message))):
            self.deliver(message)

    def is_too_much(self, size: int) -> bool:
        """Whether a frame with so many bytes exceeds a limit; its peer is turned out then."""
        if size >= SMALL_BYTES or self._allowance.take(self.loop.time()):
            return False
        self.turn_out(Close.TOO_FAST, f"more than {SMALL_PER_S:g} frames a second of less than {SMALL_BYTES} bytes")
        return True

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection with a code; the peer's answer is heard, whatever it had sent before and nobody reads."""
        self._leaving = True
        if self.recv_messages.paused:
            # For as long as messages wait, nothing behind them is read: the goodbye would take all of its time.
            self.recv_messages.paused = False
            self.recv_messages.resume()
        # The library waits for a socket that takes nothing as long as that likes: who is gone, or never reads, does not
        # keep a run from its end. Where the caller gives up before that, it ends then all the same.
        latest = self.loop.call_later(self.close_timeout, self.transport.abort)  # type: ignore[attr-defined]
        await super().close(code, reason)  # type: ignore[misc]
        latest.cancel()

    def fault(self, closed: Any) -> RemoteError | None:
        """Return for what fault of the peer this side ended the connection, if it did; `closed` says how it ended."""
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
        if not self.upgraded:
            self.turn_out_early(code, sentence)
            return
        self.protocol.fail(code, reason(sentence))
        self.send_data()  # type: ignore[attr-defined]
        if not linger_s:
            self.transport.close()
        self.loop.call_later(linger_s or GOODBYE_S, self.transport.abort)

    def turn_out_early(self, code: Close, sentence: str) -> None:
        """End a connection that is no WebSocket yet."""
        raise NotImplementedError


def _slices(data: memoryview) -> list[memoryview]:
    return [data[start : start + SLICE_BYTES] for start in range(0, len(data), SLICE_BYTES)]


def fault(code: int, sentence: str) -> RemoteError:
    """Return a peer's fault that ends its connection with `code`."""
    error = RemoteError(sentence)
    error.code = code
    return error
