"""One connection in memory: two ends, a stream each way over the lanes of a link.

::

    write() ─► unsent ─► Lane: one per phone and direction ─► feed ─► data_received
                 │                                              │
    pause_writing above the write limit                         unread while paused: a full window stops the sender

One transport object is one end of one connection.

Besides bytes it takes what is written whole: anything that is no bytes, but has their number as its length and gives
them to `bytes()`. It passes the link like those bytes, and arrives as it was written, uncopied, where the protocol has
`wholes_received`.
"""

import asyncio
import errno
import itertools
import os
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from featherfed.bandwidth_sim.drop import Ending
from featherfed.bandwidth_sim.lane import DropWatch, Lane

WRITE_LIMIT_BYTES = 64 * 1024
"""asyncio's own default for when `pause_writing` is called."""


class VirtualConnection:
    """Two ends, a stream each way, and how it may be dropped."""

    def __init__(
        self,
        lanes: tuple[Lane, Lane],
        number: int,
        *,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[int, str, int], None],
        over: Callable[[], None],
        server_context: Context,
        server_address: tuple[str, int],
    ) -> None:
        """`lanes`: up and down. `note(number, event, bytes)` is told what happens, `over()` that both ends are gone."""
        self.loop, self.number = loop, number
        self._note, self._over = note, over
        client_address = (f"phone-{number}", number)
        self.near = VirtualTransport(self, copy_context(), client_address, server_address)
        self.far = VirtualTransport(self, server_context, server_address, client_address)
        self.up = _Stream(self, lanes[0], self.near, self.far)
        self.down = _Stream(self, lanes[1], self.far, self.near)
        self.near.attach(outgoing=self.up, incoming=self.down)
        self.far.attach(outgoing=self.down, incoming=self.up)
        self.stalled = False
        self._dropped = False
        self._ends = 2
        self.watch = DropWatch(lanes, loop, self.end)

    def note(self, event: str, num_bytes: int = 0) -> None:
        """Tell the network's log."""
        self._note(self.number, event, num_bytes)

    def end(self, how: Ending) -> None:
        """End the connection: reset both ends, close once what is under way has arrived, or go silent."""
        if self._dropped:
            return
        self.note(f"drop-{how}")
        self._dropped = how != "stall"
        if how == "stall":
            self.stalled = True
        elif how == "close":
            self.up.cut()
            self.down.cut()
        else:
            for end in (self.near, self.far):
                end.lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def vanish(self) -> None:
        """End both ends without a word."""
        self.near.vanish()
        self.far.vanish()

    def left(self) -> None:
        """Note that one end is gone; the last one takes the connection off its link."""
        self._ends -= 1
        if self._ends == 0:
            self.watch.stop()
            self._over()


class Arrived(NamedTuple):
    """So many bytes of something written whole: those before `until`."""

    whole: Any
    num_bytes: int
    until: int

    def __len__(self) -> int:
        return self.num_bytes

    def __bytes__(self) -> bytes:
        return bytes(self.whole)[self.until - self.num_bytes : self.until]


class _Mixed:
    """A piece in which something written whole passes, with what is before and behind it."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: list[bytes | memoryview | Arrived], size: int) -> None:
        self.parts, self.size = parts, size

    def __len__(self) -> int:
        return self.size

    def hand_to(self, protocol: asyncio.Protocol) -> None:
        """Give a protocol its parts, in their order."""
        take_wholes = getattr(protocol, "wholes_received", None)
        if take_wholes is None:
            protocol.data_received(b"".join(map(bytes, self.parts)))
            return
        if len(self.parts) == 1:
            # As nearly always: a message, and nothing before or behind it.
            take_wholes(self.parts)
            return
        for whole, parts in itertools.groupby(self.parts, lambda part: type(part) is Arrived):
            if whole:
                take_wholes(list(parts))
            else:
                protocol.data_received(b"".join(map(bytes, parts)))


_PLAIN = (bytes, memoryview)


class _Unsent:
    """What waits for the link: pieces as they were written, which are handed on uncopied where they fit its turns."""

    def __init__(self) -> None:
        # A list: there are few, and an empty deque has ten times its bytes, in each of thousands of connections.
        self._parts: list[Any] = []
        self._begun = 0
        """How many bytes of the first part are gone, where it was written whole."""
        self.size = 0
        """How many bytes wait: asked several times for each piece."""

    def append(self, data: Any) -> None:
        """Take more; what the writer may still change is copied."""
        if data:
            self._parts.append(bytes(data) if isinstance(data, bytearray | memoryview) else data)
            self.size += len(data)

    def clear(self) -> None:
        """Forget all of it."""
        self._parts.clear()
        self.size = self._begun = 0

    def take(self, room: int) -> "bytes | _Mixed":
        """Return the first bytes, as many as there are up to `room`."""
        size = wanted = min(room, self.size)
        self.size -= wanted
        first = self._parts[0] if wanted else b""
        if not isinstance(first, _PLAIN) and not self._begun and len(first) == wanted:
            del self._parts[0]
            return _Mixed([Arrived(first, wanted, wanted)], wanted)
        taken: list[bytes | memoryview | Arrived] = []
        mixed = False
        while wanted:
            part = self._parts[0]
            if not isinstance(part, _PLAIN):
                here = min(len(part) - self._begun, wanted)
                self._begun += here
                taken.append(Arrived(part, here, self._begun))
                mixed, wanted = True, wanted - here
                if self._begun == len(part):
                    self._parts.pop(0)
                    self._begun = 0
                continue
            if len(part) > wanted:
                view = memoryview(part)
                self._parts[0], part = view[wanted:], view[:wanted]
            else:
                self._parts.pop(0)
            wanted -= len(part)
            taken.append(part)
        if mixed:
            return _Mixed(taken, size)
        if len(taken) == 1 and isinstance(taken[0], bytes):
            return taken[0]
        return b"".join(map(bytes, taken))


class _Stream:
    """One direction of one connection: what waits to be sent, what is under way or not read yet; b"" is the end."""

    def __init__(
        self, connection: VirtualConnection, lane: Lane, sender: "VirtualTransport", receiver: "VirtualTransport"
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._sender, self._receiver = sender, receiver
        self.unsent = _Unsent()
        self._window = lane.link.spec.window_bytes
        self._under_way = 0
        self._sent = self._delivered = 0
        self._end_asked = self._end_sent = self._reset = False
        self._in_line = False

    def stays(self) -> bool:
        """Return whether a piece, or the end, can go on the link now; if not, it is out of the line."""
        self._in_line = self._ready()
        return self._in_line

    def _ready(self) -> bool:
        if self._end_sent or self._connection.stalled:
            # Of what goes into silence nothing is acknowledged: it waits for ever.
            return False
        if not self.unsent.size:
            return self._end_asked
        if self._under_way >= self._window:
            return False
        return self._lane.link.allowance(self._sent) > 0

    def ask(self) -> None:
        """Wait for the lane's next turn if there is anything to send."""
        if not self._in_line and self._ready():
            self._in_line = True
            self._lane.ask(self)

    def write(self, parts: Iterable[Any]) -> None:
        """Send more, together; after a cut it is dropped."""
        if not self._end_asked:
            for part in parts:
                self.unsent.append(part)
            self.ask()

    def write_eof(self) -> None:
        """Say the end after what waits."""
        self._end_asked = True
        self.ask()

    def cut(self) -> None:
        """Say the end now: what was not put on the link never is."""
        self.unsent.clear()
        self.write_eof()

    def take(self, room: int) -> bytes | _Mixed | None:
        """Return the next piece for the lane."""
        if not self.stays():
            return None
        room = int(min(room, self._lane.link.allowance(self._sent)))
        piece = self.unsent.take(room)
        self._sent += len(piece)
        self._under_way += len(piece)
        if not piece:
            self._end_sent = True
        self._sender.sent()
        return piece

    def arrive(self, piece: bytes | _Mixed) -> bool:
        """Hand a piece to the receiver, unless it is lost in silence."""
        connection = self._connection
        if connection.stalled:
            return False
        self._delivered += len(piece)
        connection.note("up" if self is connection.up else "down", len(piece))
        self._receiver.context.run(self._receiver.feed, piece)
        if piece:
            connection.watch.carried(self._lane, self._delivered)
        return True

    def read(self, num_bytes: int) -> None:
        """The receiver has read so much: the window opens."""
        self._under_way -= num_bytes
        self.ask()

    def reset(self) -> None:
        """Tell the receiver of a reset, behind what is under way."""
        if self._reset:
            return
        self.unsent.clear()
        self._end_asked = self._end_sent = self._reset = True
        self._lane.follow(self._arrive_reset)

    def _arrive_reset(self) -> None:
        if not self._connection.stalled:
            self._receiver.was_reset()


class VirtualTransport(asyncio.Transport):
    """One end of a connection in memory."""

    takes_wholes = True
    """Whether `write` takes more than bytes."""

    def __init__(
        self, connection: VirtualConnection, context: Context, sockname: tuple[str, int], peername: tuple[str, int]
    ) -> None:
        super().__init__({"sockname": sockname, "peername": peername})
        self.context = context
        self._connection = connection
        self._protocol: asyncio.BaseProtocol | None = None
        self._unread: list[bytes | _Mixed] = []
        self._reading = True
        self._begun = False
        self._eof_written = self._closing = self._lost = False
        self._high, self._low = WRITE_LIMIT_BYTES, WRITE_LIMIT_BYTES // 4
        self._writing_paused = False

    def attach(self, *, outgoing: _Stream, incoming: _Stream) -> None:
        """Join the two streams to this end."""
        self._out, self._in = outgoing, incoming

    # What the program at this end calls

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Use another protocol from now on."""
        if isinstance(protocol, asyncio.BufferedProtocol):
            raise TypeError("connections in memory have no buffered protocols")
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        assert self._protocol is not None, "it is set before anything happens"
        return self._protocol

    def is_closing(self) -> bool:
        """Return whether this end is closing or closed."""
        return self._closing

    def is_reading(self) -> bool:
        """Return whether data is handed on as it arrives."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """Keep what arrives; a full window then stops the sender."""
        self._reading = False

    def resume_reading(self) -> None:
        """Hand on what was kept, and what arrives."""
        if not self._reading:
            self._reading = True
            if self._unread:
                self._connection.loop.call_soon(self._catch_up, context=self.context)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` and `resume_writing` are called, in bytes; as asyncio's own transports."""
        if high is None:
            high = WRITE_LIMIT_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._mind_limits()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return (low, high) in bytes."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are not on the link yet."""
        return self._out.unsent.size

    def write(self, data: Any) -> None:
        """Send bytes, or something whole; what comes after the end of the connection is dropped."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send several pieces of data together."""
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        parts = [data for data in list_of_data if data]
        if parts and not self._closing:
            self._out.write(parts)
            self._mind_limits()

    def can_write_eof(self) -> bool:
        """Half-close is possible."""
        return True

    def write_eof(self) -> None:
        """Close the sending direction once all is sent."""
        if not self._closing:
            self._eof_written = True
            self._out.write_eof()

    def close(self) -> None:
        """Send what waits, then end both directions."""
        if not self._closing:
            self._closing = True
            self._out.write_eof()
            self.sent()

    def abort(self) -> None:
        """End at once with a reset."""
        if not self._lost:
            self._out.reset()
            self.lose(None)

    # What the network calls

    def begin(self) -> None:
        """Tell the protocol of its connection, then hand on what came before."""
        self.get_protocol().connection_made(self)
        self._begun = True
        self._catch_up()

    def sent(self) -> None:
        """Go on after a piece went on the link."""
        if self._closing and not self._out.unsent.size:
            self.lose(None)
        else:
            self._mind_limits()

    def feed(self, piece: bytes | _Mixed) -> None:
        """Take what arrived."""
        if self._closing:
            # As the kernel answers what nobody will read: a reset.
            self._in.read(len(piece))
            if self._lost and piece:
                self._out.reset()
        elif self._reading and self._begun and not self._unread:
            self._hand_on(piece)
        else:
            self._unread.append(piece)

    def was_reset(self) -> None:
        """The other end is gone for good."""
        self.lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def lose(self, error: Exception | None) -> None:
        """End this end: the protocol hears of it soon, once."""
        if self._lost:
            return
        self._closing = self._lost = True
        self._out.unsent.clear()
        self._unread.clear()
        self._connection.left()
        if self._protocol is not None:
            self._connection.loop.call_soon(self._protocol.connection_lost, error, context=self.context)

    def vanish(self) -> None:
        """End this end without telling its protocol."""
        self._closing = self._lost = True

    def _catch_up(self) -> None:
        while self._unread and self._reading and not self._closing:
            self._hand_on(self._unread.pop(0))

    def _hand_on(self, piece: bytes | _Mixed) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol), "a protocol of streams"
        try:
            if isinstance(piece, _Mixed):
                piece.hand_to(protocol)
            elif piece:
                protocol.data_received(piece)
            elif not protocol.eof_received():
                self.close()
        except Exception as error:
            self._connection.loop.call_exception_handler(
                {
                    "message": "Fatal error: the protocol failed on what it received.",
                    "exception": error,
                    "transport": self,
                    "protocol": protocol,
                }
            )
            self.abort()
            return
        self._in.read(len(piece))

    def _mind_limits(self) -> None:
        waiting = self._out.unsent.size
        if not self._writing_paused and waiting > self._high:
            self._writing_paused = True
            self.get_protocol().pause_writing()
        elif self._writing_paused and waiting <= self._low:
            self._writing_paused = False
            self.get_protocol().resume_writing()
