"""The network of virtual time: connections in memory, with a `Link` in each direction.

::

    write() ─► unsent ─► Lane: one per phone and direction ─► feed ─► data_received
                 │                                              │
    pause_writing above the write limit                         unread while paused: a full window stops the sender

One transport object is one end of one connection.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bandwidth_sim.drop import Ending
from bandwidth_sim.lane import DropWatch, Lane, handshake
from bandwidth_sim.link import LinkSpec
from bandwidth_sim.profile import Profile

if TYPE_CHECKING:
    from bandwidth_sim.virtual import VirtualLoop

NetworkLog = Callable[[float, int, str, int], None]
"""Is told of every event: (t_s, connection, event, bytes)."""

WRITE_LIMIT_BYTES = 64 * 1024
"""asyncio's own default for when `pause_writing` is called."""
FIRST_PORT = 49152
ANY_HOST = "0.0.0.0"
_LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1", "": ANY_HOST, "::": ANY_HOST}

_current: ContextVar["VirtualLink | None"] = ContextVar("link", default=None)


class VirtualLink:
    """Both lanes of one phone in virtual time; the counterpart of `relay.PhoneLink`."""

    def __init__(self, profile: Profile, seed: int, loop: "VirtualLoop") -> None:
        self.profile = profile
        self.up = Lane(profile.up, seed, loop, loop.arrive_at)
        self.down = Lane(profile.down, seed, loop, loop.arrive_at)
        self._connections: dict[int, _Connection] = {}

    @property
    def open_connections(self) -> int:
        """How many connections use the link now."""
        return len(self._connections)

    def change(self, profile: Profile) -> None:
        """Use another profile from now on, also for the connections that are open."""
        self.profile = profile
        self.up.change(profile.up)
        self.down.change(profile.down)

    def end(self, how: Ending) -> None:
        """End all connections that are open now."""
        for connection in list(self._connections.values()):
            connection.end(how)

    def opened(self, number: int, connection: "_Connection") -> None:
        """Note a connection."""
        self._connections[number] = connection

    def gone(self, number: int) -> None:
        """Forget a connection."""
        self._connections.pop(number, None)


class VirtualDialer:
    """A phone's way out in virtual time, in place of `relay.LinkedDialer`: what its task connects uses its link."""

    def __init__(self, profile: Profile, seed: int) -> None:
        """Make it inside a running `VirtualLoop`."""
        network = getattr(asyncio.get_running_loop(), "network", None)
        if not isinstance(network, VirtualNetwork):
            raise TypeError("a VirtualDialer needs a running VirtualLoop: start it with bandwidth_sim.virtual.run")
        self.link = VirtualLink(profile, seed, network.loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.link.end("reset")

    async def connect(self, host: str, port: int) -> None:
        """Leave the connection to the event loop, which from here on takes this link for the calling task."""
        _current.set(self.link)

    @property
    def chunk_bytes(self) -> int:
        """How much to send in one message."""
        return self.link.profile.chunk_bytes

    def keepalive(self, message_bytes: int = 0) -> tuple[float, float]:
        """Return ping interval and timeout in seconds."""
        return self.link.profile.keepalive(message_bytes)


class VirtualNetwork:
    """Who listens where, and the connections between them."""

    def __init__(self, loop: "VirtualLoop", log: NetworkLog | None) -> None:
        self.loop = loop
        self._log = log
        self._servers: dict[tuple[str, int], VirtualServer] = {}
        self._connections: dict[int, _Connection] = {}
        self._count = 0
        self._next_port = FIRST_PORT
        self._unlimited: VirtualLink | None = None

    def note(self, connection: int, event: str, num_bytes: int = 0) -> None:
        """Tell the log."""
        if self._log is not None:
            self._log(self.loop.time(), connection, event, num_bytes)

    def listen(self, server: "VirtualServer", host: str, port: int) -> tuple[str, int]:
        """Take an address; raises OSError where it is taken."""
        host = _LOCAL.get(host, host)
        while port == 0:
            if self._listener(host, self._next_port) is None:
                port = self._next_port
            self._next_port += 1
        if self._listener(host, port) is not None:
            raise OSError(errno.EADDRINUSE, f"{host}:{port}: {os.strerror(errno.EADDRINUSE)}")
        self._servers[host, port] = server
        return host, port

    def unlisten(self, host: str, port: int) -> None:
        """Give an address back."""
        self._servers.pop((host, port), None)

    def opened(self, connection: "_Connection") -> None:
        """Note a connection."""
        self._connections[connection.number] = connection

    def gone(self, connection: "_Connection") -> None:
        """Forget a connection."""
        del self._connections[connection.number]

    def close(self) -> None:
        """End what is open, for there is nobody left to tell."""
        for connection in self._connections.values():
            connection.vanish()

    def _listener(self, host: str, port: int) -> "VirtualServer | None":
        return self._servers.get((host, port)) or self._servers.get((ANY_HOST, port))

    async def connect(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple["VirtualTransport", asyncio.BaseProtocol]:
        """Connect after one round trip of the link; raises ConnectionRefusedError where nobody listens."""
        link = _current.get()
        if link is None:
            link = self._unlimited = self._unlimited or VirtualLink(
                Profile("unlimited", LinkSpec(), LinkSpec(), "none"), 0, self.loop
            )
        await handshake(link.up, link.down)
        name = _LOCAL.get(host, host)
        server = self._listener(name, port)
        if server is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {(name, port)!r}")
        self._count += 1
        connection = _Connection(self, link, self._count, server.context, (name, port))
        self.note(connection.number, "open")
        protocol = protocol_factory()
        connection.near.set_protocol(protocol)
        # The server's end first: it must be there before the first byte.
        server.accept(connection.far)
        self.loop.call_soon(connection.near.begin, context=connection.near.context)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            connection.near.abort()
            raise
        return connection.near, protocol


class _Listener:
    """What a server shows in place of its socket."""

    family = socket.AF_INET

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        """Return host and port."""
        return self._address


class VirtualServer(asyncio.AbstractServer):
    """Listens in memory."""

    def __init__(
        self, network: VirtualNetwork, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> None:
        self._network = network
        self._factory = protocol_factory
        self._address = network.listen(self, host, port)
        self._open = True
        self._serving = False
        self._backlog: list[VirtualTransport] = []
        self._forever: asyncio.Future[None] | None = None
        self.context = copy_context()

    @property
    def sockets(self) -> tuple[_Listener, ...]:
        """One stand-in with `family` and `getsockname`, none after the close."""
        return (_Listener(self._address),) if self._open else ()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._network.loop

    def is_serving(self) -> bool:
        """Return whether connections are accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Accept from now on."""
        self._serving = self._open
        backlog, self._backlog = self._backlog, []
        for transport in backlog:
            self.accept(transport)

    async def serve_forever(self) -> None:
        """Accept until cancelled."""
        await self.start_serving()
        self._forever = self._network.loop.create_future()
        try:
            await self._forever
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening; open connections live on."""
        if self._open:
            self._open = self._serving = False
            self._network.unlisten(*self._address)
            if self._forever is not None and not self._forever.done():
                self._forever.cancel()

    async def wait_closed(self) -> None:
        """Return: nothing is left to wait for."""
        await asyncio.sleep(0)

    def accept(self, transport: "VirtualTransport") -> None:
        """Give a new connection's end its protocol."""
        if not self._serving:
            self._backlog.append(transport)
            return
        transport.set_protocol(self._factory())
        self._network.loop.call_soon(transport.begin, context=self.context)


class _Connection:
    """Two ends, a stream each way, and how it may be dropped."""

    def __init__(
        self,
        network: VirtualNetwork,
        link: VirtualLink,
        number: int,
        server_context: Context,
        server_address: tuple[str, int],
    ) -> None:
        self.network, self.number = network, number
        self._link = link
        client_address = (f"phone-{number}", number)
        self.near = VirtualTransport(self, copy_context(), client_address, server_address)
        self.far = VirtualTransport(self, server_context, server_address, client_address)
        self.up = _Stream(self, link.up, self.near, self.far)
        self.down = _Stream(self, link.down, self.far, self.near)
        self.near.attach(outgoing=self.up, incoming=self.down)
        self.far.attach(outgoing=self.down, incoming=self.up)
        self.stalled = False
        self._dropped = False
        self._ends = 2
        self.watch = DropWatch((link.up, link.down), network.loop, self.end)
        link.opened(number, self)
        network.opened(self)

    def end(self, how: Ending) -> None:
        """End the connection: reset both ends, close once what is under way has arrived, or go silent."""
        if self._dropped:
            return
        self.network.note(self.number, f"drop-{how}")
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
            self._link.gone(self.number)
            self.network.gone(self)
            self.network.note(self.number, "closed")


class _Stream:
    """One direction of one connection: what waits to be sent, what is under way or not read yet; b"" is the end."""

    def __init__(
        self, connection: _Connection, lane: Lane, sender: "VirtualTransport", receiver: "VirtualTransport"
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._sender, self._receiver = sender, receiver
        self.unsent = bytearray()
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
        if self._end_sent:
            return False
        if not self.unsent:
            return self._end_asked
        if self._under_way >= self._window:
            return False
        return self._connection.stalled or self._lane.link.allowance(self._sent) > 0

    def ask(self) -> None:
        """Wait for the lane's next turn if there is anything to send."""
        if not self._in_line and self._ready():
            self._in_line = True
            self._lane.ask(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send more; after a cut it is dropped."""
        if not self._end_asked:
            self.unsent += data
            self.ask()

    def write_eof(self) -> None:
        """Say the end after what waits."""
        self._end_asked = True
        self.ask()

    def cut(self) -> None:
        """Say the end now: what was not put on the link never is."""
        self.unsent.clear()
        self.write_eof()

    def take(self, room: int) -> bytes | None:
        """Return the next piece for the lane."""
        if not self.stays():
            return None
        if not self._connection.stalled:
            room = int(min(room, self._lane.link.allowance(self._sent)))
        piece = bytes(self.unsent[:room])
        del self.unsent[: len(piece)]
        self._sent += len(piece)
        self._under_way += len(piece)
        if not piece:
            self._end_sent = True
        self._sender.sent()
        return piece

    def arrive(self, piece: bytes) -> bool:
        """Hand a piece to the receiver, unless it is lost in silence."""
        connection = self._connection
        if connection.stalled:
            self._under_way -= len(piece)
            self.ask()
            return False
        self._delivered += len(piece)
        connection.network.note(connection.number, "up" if self is connection.up else "down", len(piece))
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

    def __init__(
        self, connection: _Connection, context: Context, sockname: tuple[str, int], peername: tuple[str, int]
    ) -> None:
        super().__init__({"sockname": sockname, "peername": peername})
        self.context = context
        self._connection = connection
        self._protocol: asyncio.BaseProtocol | None = None
        self._unread: deque[bytes] = deque()
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
                self._connection.network.loop.call_soon(self._catch_up, context=self.context)

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
        return len(self._out.unsent)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data; what comes after the end of the connection is dropped."""
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if data and not self._closing:
            self._out.write(data)
            self._mind_limits()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send several pieces of data."""
        self.write(b"".join(list_of_data))

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
        if self._closing and not self._out.unsent:
            self.lose(None)
        else:
            self._mind_limits()

    def feed(self, piece: bytes) -> None:
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
            self._connection.network.loop.call_soon(self._protocol.connection_lost, error, context=self.context)

    def vanish(self) -> None:
        """End this end without telling its protocol."""
        self._closing = self._lost = True

    def _catch_up(self) -> None:
        while self._unread and self._reading and not self._closing:
            self._hand_on(self._unread.popleft())

    def _hand_on(self, piece: bytes) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol), "a protocol of streams"
        try:
            if piece:
                protocol.data_received(piece)
            elif not protocol.eof_received():
                self.close()
        except Exception as error:
            self._connection.network.loop.call_exception_handler(
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
        waiting = len(self._out.unsent)
        if not self._writing_paused and waiting > self._high:
            self._writing_paused = True
            self.get_protocol().pause_writing()
        elif self._writing_paused and waiting <= self._low:
            self._writing_paused = False
            self.get_protocol().resume_writing()
