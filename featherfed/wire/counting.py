"""Bytes as the socket carries them: counted where they are handed to the transport and taken from it.

A connection class of the websockets library is mixed with `CountsBytes`; what it counts includes the HTTP upgrade,
frame headers, masks, pings and closes, and excludes TLS records, TCP and IP.
"""

import contextlib
import struct
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from featherfed.wire.framing import Framed, sole_message, unmasked_frame
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
        self.takes_wholes = getattr(transport, "takes_wholes", False)
        """Whether a message need not be made a frame (`framing.Framed`)."""
        self._joining = 0
        self._joined: list[Any] = []

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
            self._joined.append(data)
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
        if self.ended:
            return 0
        waiting = int(self._transport.get_write_buffer_size())
        return waiting + sum(map(len, self._joined)) if self._joined else waiting

    def _flush(self) -> None:
        joined, self._joined, self._joining = self._joined, [], 0
        if joined and self.takes_wholes:
            self._transport.writelines(joined)
        elif joined:
            self._transport.write(b"".join(joined))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CountsBytes:
    """A mixin for the library's connection classes: `bytes_received` and `bytes_sent` of the whole connection."""

    protocol: Any
    open_state: ClassVar[object]
    """The library's word for a connection that is open."""
    masks: ClassVar[bool]
    """Whether this end masks its frames, as a client must."""

    request: Any
    response: Any
    bytes_received = 0
    bytes_cut = 0
    """Received of a frame whose end has not come: noted at once, the library drops them when the connection ends."""
    _counting: CountingTransport | None = None
    _between_frames = False
    """Whether what comes next begins a frame."""

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

    def forget_handshake(self) -> None:
        """Drop the headers of what was asked and answered, which the library keeps to the end: 2 kB a connection."""
        # Not the answer itself: by it the library knows that its handshake is over.
        for each in (self.request, self.response):
            if each is not None:
                each.headers.clear()

    def connection_lost(self, error: Exception | None) -> None:
        """Let the transport rest, then end."""
        if self._counting is not None:
            self._counting.ended = True
        super().connection_lost(error)  # type: ignore[misc]

    def data_received(self, data: bytes | memoryview) -> None:
        """Count, then parse: a message in one frame, as nearly all come, without the library's parser."""
        self.bytes_received += len(data)
        message = None
        if self._between_frames and self.is_open:
            message = sole_message(data, None if self.masks else self.unmask)
        if message is None or not self._take(message):
            super().data_received(data)  # type: ignore[misc]
            self.bytes_cut = len(self.protocol.reader.buffer)
            self._between_frames = _waits_for_frame(self.protocol.parser)

    def wholes_received(self, parts: Sequence[Any]) -> None:
        """Count what came of `Framed` messages, and take those that are whole, as if they had been parsed.

        Each part has `num_bytes` of its `whole`, the last of them the one before `until`.
        """
        for part in parts:
            self.bytes_received += part.num_bytes
            framed: Framed = part.whole
            if part.until < len(framed):
                self.bytes_cut = framed.held_of(part.until)
                continue
            self.bytes_cut = 0
            if not (self.is_open and self._take(framed.message)):
                # On its way out, or too large: the library knows what becomes of it.
                super().data_received(bytes(framed))  # type: ignore[misc]

    def _take(self, message: bytes) -> bool:
        """Take a whole message as if it had been parsed, on a connection that is open; return whether it may be."""
        most = self.protocol.max_message_size
        if most is not None and len(message) > most:
            return False
        self.message_received(message)
        return True

    def message_received(self, message: bytes) -> None:
        """Take a message that came in one frame."""
        self.deliver(message)

    def deliver(self, message: bytes) -> None:
        """Give a message to whoever waits for it."""
        self.hand_on(self.frame_of(message))

    def hand_on(self, event: Any) -> None:
        """Give a frame to whoever waits for it."""
        super().process_event(event)  # type: ignore[misc]

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent, and what comes is taken."""
        return self.protocol.state is self.open_state

    def unmask(self, data: bytes | memoryview, mask: bytes | memoryview) -> bytes:
        """Return a message without its mask, at an end whose peer masks its frames."""
        raise NotImplementedError

    def frame_of(self, message: bytes) -> Any:
        """Return what the library's parser makes of a message's frame."""
        raise NotImplementedError

    @property
    def writes_messages(self) -> bool:
        """Whether `write_message` can: without a mask, or where no frame is made at all."""
        return self._counting is not None and (self._counting.takes_wholes or not self.masks)

    def write_message(self, message: bytes) -> None:
        """Send a message in one frame, on a connection that is open."""
        assert self._counting is not None, "it was asked whether it writes messages"
        whole = self._counting.takes_wholes
        self._counting.write(Framed(message, masked=self.masks) if whole else unmasked_frame(message))


def _waits_for_frame(parser: Any) -> bool:
    """Return whether the library's parser, a generator, waits for a frame's first byte."""
    while (inner := parser.gi_yieldfrom) is not None:
        parser = inner
    return bool(parser.__name__ == "at_eof")
