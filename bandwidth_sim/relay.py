"""A phone's link on real sockets, inside the phone's process.

::

    phone's code ── socketpair ── take ─► Lane up   ─► arrive ── TCP ── server
                                arrive ◄─ Lane down ◄─ take

Buffers of the kernel are small on every hop, or loopback would swallow megabytes at once and the sender would feel
nothing. Pieces are handed on at absolute deadlines that the pure `Link` computes. There is no task for a connection:
callbacks of the event loop cost a third, and with hundreds of phones on one core that decides.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

from featherfed.bandwidth_sim.drop import Ending
from featherfed.bandwidth_sim.lane import DropWatch, Lane, handshake
from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile

BUFFER_BYTES = 8 * 1024
"""SO_SNDBUF and SO_RCVBUF of each hop on a slow link; the kernel doubles it for its own bookkeeping."""
BUFFER_S = 0.01
"""On a fast link a hop holds so many seconds instead, or the kernel itself would be the bottleneck."""

Log = Callable[[dict[str, object]], None]


def buffer_bytes(spec: LinkSpec) -> int:
    """Return the socket buffer for a hop of this direction."""
    return int(min(max(BUFFER_BYTES, spec.goodput_bytes_per_s * BUFFER_S), 1 << 18))


def shrink(sock: socket.socket, spec: LinkSpec) -> None:
    """Make both kernel buffers of a socket small; before listen or connect, or TCP has already offered its window."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes(spec))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes(spec))


async def dial(host: str, port: int, spec: LinkSpec) -> socket.socket:
    """Return a non-blocking TCP socket with small buffers, connected to the target; raises OSError if refused."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        shrink(sock, spec)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            refused = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise refused or OSError(f"no address for {host}")


class _Way:
    """One direction of a relayed connection: from one socket through a lane to the other; b"" is the end.

    It reads only when it has its turn, so that the source's kernel buffer fills up and its program feels the link.
    """

    def __init__(self, connection: "Connection", lane: Lane, source: socket.socket, target: socket.socket) -> None:
        self._connection = connection
        self._lane = lane
        self._source, self._target = source, target
        self._loop = asyncio.get_running_loop()
        self._held = bytearray()  # arrived, and the target's buffer was full
        self._under_way = 0
        self._taken = self._delivered = 0
        self._watching = self._in_line = self._more = False
        self._ended = False  # nothing more is read
        self._end_due = False  # the end has arrived, or follows what is under way
        self.passed_on = False
        """Whether the end has reached the target."""

    def go_on(self) -> None:
        """Wait for data at the source, if there is reason to read."""
        if self._may_read() and not (self._watching or self._in_line):
            self._watching = True
            self._loop.add_reader(self._source, self._readable)

    def _may_read(self) -> bool:
        if self._ended or self._connection.over or self._under_way >= self._lane.link.window_bytes:
            return False
        # When all that this connection may carry is under way, it ends as soon as that has arrived.
        return self._connection.stalled or self._lane.link.allowance(self._taken) > 0

    def _readable(self) -> None:
        self._stop_watching()
        self._in_line = True
        self._lane.ask(self)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._source)

    def take(self, room: int) -> bytes | None:
        """Read a piece for the lane."""
        self._in_line = False
        if not self._may_read():
            return None
        if not self._connection.stalled:
            room = int(min(room, self._lane.link.allowance(self._taken)))
        try:
            piece = self._source.recv(room)
        except (BlockingIOError, InterruptedError):
            self.go_on()
            return None
        except OSError:
            self._connection.finish("reset")
            return None
        self._more = len(piece) == room
        self._ended = not piece
        self._taken += len(piece)
        self._under_way += len(piece)
        return piece

    def stays(self) -> bool:
        """Return whether the source probably has more; if not, wait until it has."""
        self._in_line = self._more and self._may_read()
        if not self._in_line:
            self.go_on()
        return self._in_line

    def arrive(self, piece: bytes) -> bool:
        """Write what has arrived, unless it is lost in silence."""
        connection = self._connection
        if connection.over:
            return False
        if connection.stalled:
            self._under_way -= len(piece)
            self.go_on()
            return False
        self._end_due = self._end_due or not piece
        self._delivered += len(piece)
        self._held += piece
        if len(self._held) == len(piece):
            self._flush()
        if piece:
            connection.watch.carried(self._lane, self._delivered)
        return True

    def _flush(self) -> None:
        try:
            while self._held:
                sent = self._target.send(self._held)
                del self._held[:sent]
                self._under_way -= sent
            if self._end_due and not self._under_way and not self.passed_on:
                self._target.shutdown(socket.SHUT_WR)
                self.passed_on = True
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._target, self._writable)
        except OSError:
            self._connection.finish("reset")
        else:
            if self.passed_on:
                self._connection.passed_on()
            else:
                self.go_on()

    def _writable(self) -> None:
        self._loop.remove_writer(self._target)
        self._flush()

    def cut(self) -> None:
        """Read no more; the end follows what is under way."""
        self._stop_watching()
        self._ended = self._end_due = True
        if not self._under_way:
            self._flush()

    def stop(self) -> None:
        """Leave the event loop."""
        self._stop_watching()
        self._loop.remove_writer(self._target)


class Connection:
    """One relayed connection: two sockets, a way each direction; `done` is told how it ended.

    Outcomes: `closed`, `reset`, `drop-reset`, `drop-close`.
    """

    def __init__(
        self, near: socket.socket, far: socket.socket, up: Lane, down: Lane, done: Callable[[str], None]
    ) -> None:
        self._sockets = near, far
        self._done = done
        self._ways = _Way(self, up, near, far), _Way(self, down, far, near)
        self._cut = False
        self.over = self.stalled = False
        self.watch = DropWatch((up, down), asyncio.get_running_loop(), self.end)

    def start(self) -> None:
        """Begin to relay."""
        for way in self._ways:
            way.go_on()

    def end(self, how: Ending) -> None:
        """End the connection: reset, close once what is under way has arrived, or go silent."""
        if how == "stall":
            self.stalled = True
            self.start()
        elif how == "reset":
            self.finish("drop-reset")
        elif not self._cut:
            self._cut = True
            for way in self._ways:
                way.cut()

    def passed_on(self) -> None:
        """Note that the end of a direction was passed on; after both the connection is over."""
        if all(way.passed_on for way in self._ways):
            self.finish("drop-close" if self._cut else "closed")

    def finish(self, outcome: str) -> None:
        """Close both sockets, with a reset where that was the outcome."""
        if self.over:
            return
        self.over = True
        self.watch.stop()
        for way in self._ways:
            way.stop()
        for sock in self._sockets:
            _close(sock, reset=outcome in ("reset", "drop-reset"))
        self._done(outcome)


def _close(sock: socket.socket, *, reset: bool) -> None:
    if reset and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class PhoneLink:
    """Both lanes of one phone and the connections that share them; must be made inside a running event loop."""

    def __init__(self, profile: Profile, seed: int, log: Log | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.profile = profile
        self.up = Lane(profile.up, seed, loop)
        self.down = Lane(profile.down, seed, loop)
        self._log = log
        self._connections: dict[int, Connection] = {}
        self._count = 0

    @property
    def open_connections(self) -> int:
        """How many connections are relayed now."""
        return len(self._connections)

    def change(self, profile: Profile) -> None:
        """Use another profile from now on, also for the connections that are open."""
        self.profile = profile
        self.up.change(profile.up)
        self.down.change(profile.down)

    def relay(self, near: socket.socket, far: socket.socket) -> None:
        """Relay between two connected non-blocking sockets, which belong to the link from here on."""
        self._count += 1
        number = self._count
        connection = Connection(near, far, self.up, self.down, lambda outcome: self._gone(number, outcome))
        self._connections[number] = connection
        self._note(connection=number, event="open")
        connection.start()

    def _gone(self, number: int, outcome: str) -> None:
        del self._connections[number]
        self._note(connection=number, event=outcome, up=self.up.counters.delivered_bytes)

    def _note(self, **facts: object) -> None:
        if self._log is not None:
            self._log({"t_s": round(self.up.now_s, 6), "link": self.profile.name, **facts})

    def end(self, how: Ending) -> None:
        """End all connections that are open now."""
        for connection in list(self._connections.values()):
            connection.end(how)

    def close(self) -> None:
        """End everything at once; no task and no descriptor is left."""
        for connection in list(self._connections.values()):
            connection.finish("closed")


class LinkedDialer:
    """The phone's way out: connections to servers through one emulated link.

    >>> async def phone(profile):
    ...     async with LinkedDialer(profile, seed=1) as dialer:
    ...         sock = await dialer.connect("127.0.0.1", 8765)
    """

    def __init__(self, profile: Profile, seed: int, *, log: Log | None = None) -> None:
        self._link = PhoneLink(profile, seed, log)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def link(self) -> PhoneLink:
        """The link with its counters (`link.up.counters`, `link.down.counters`) and `change`."""
        return self._link

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return the phone's end of a relayed connection after a round trip; raises OSError if the target refuses."""
        profile = self._link.profile
        await handshake(self._link.up, self._link.down)
        far = await dial(host, port, profile.up)
        mine, near = socket.socketpair()
        for sock in (mine, near):
            sock.setblocking(False)
            shrink(sock, profile.up)
        self._link.relay(near, far)
        return mine

    @property
    def chunk_bytes(self) -> int:
        """How much to send in one message."""
        return self._link.profile.chunk_bytes

    def keepalive(self, message_bytes: int = 0) -> tuple[float, float]:
        """Return ping interval and timeout in seconds that a full link does not break."""
        return self._link.profile.keepalive(message_bytes)

    @property
    def answer_s(self) -> float:
        """How many seconds a ping and its pong may take."""
        return self._link.profile.answer_s()

    async def close(self) -> None:
        """End all connections; leaves no task and no descriptor of the relay."""
        self._link.close()
