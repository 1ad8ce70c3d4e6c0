"""A phone's link on real sockets, inside the phone's process.

::

    phone's code ── socketpair ── reader ─► Lane up   ─► writer ── TCP ── server
                                  writer ◄─ Lane down ◄─ reader

Buffers of the kernel are small on every hop, or loopback would swallow megabytes at once and the sender would feel
nothing. Pieces are handed on at absolute deadlines that the pure `Link` computes.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from bandwidth_sim.drop import Ending
from bandwidth_sim.lane import Lane
from bandwidth_sim.link import LinkSpec
from bandwidth_sim.profile import Profile

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


class _Transit:
    """What is under way in one direction of one connection: due times and pieces, in order; b"" is the end."""

    def __init__(self, window_bytes: int) -> None:
        self._limit = window_bytes
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._moved = asyncio.Event()

    async def put(self, due_at_s: float, piece: bytes) -> None:
        self._pieces.append((due_at_s, piece))
        self._bytes += len(piece)
        self._moved.set()
        while self._bytes > self._limit:
            self._moved.clear()
            await self._moved.wait()

    async def get(self) -> tuple[float, bytes]:
        while not self._pieces:
            self._moved.clear()
            await self._moved.wait()
        return self._pieces[0]

    def done(self) -> None:
        _, piece = self._pieces.popleft()
        self._bytes -= len(piece)
        self._moved.set()


class Connection:
    """One relayed connection: two sockets, a lane each way."""

    def __init__(
        self, near: socket.socket, far: socket.socket, up: Lane, down: Lane, clock: Callable[[], float]
    ) -> None:
        self._near, self._far = near, far
        self._up, self._down = up, down
        self._clock = clock
        self._opened_at_s = clock()
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._verdict = asyncio.Event()
        self._stalled = False

    def end(self, how: Ending) -> None:
        """End the connection: reset, close once what is under way has arrived, or go silent."""
        self._verdict.set()
        if how == "stall":
            self._stalled = True
        elif not self._ended.done():
            self._ended.set_result(how)

    def release(self) -> None:
        """Close both sockets; harmless when they are closed already."""
        self._near.close()
        self._far.close()

    async def run(self) -> str:
        """Relay until both directions have ended; return how: `closed`, `reset`, `drop-reset`, `drop-close`."""
        up, down = _Transit(self._up.link.window_bytes), _Transit(self._down.link.window_bytes)
        readers = [
            asyncio.create_task(self._read(self._near, self._up, up)),
            asyncio.create_task(self._read(self._far, self._down, down)),
        ]
        writers = [
            asyncio.create_task(self._write(self._far, self._up, up)),
            asyncio.create_task(self._write(self._near, self._down, down)),
        ]
        lifetimes = [lane.link.spec.drop.after_s for lane in (self._up, self._down) if lane.link.spec.drop]
        clocks = [asyncio.create_task(self._expire(after_s)) for after_s in lifetimes if after_s is not None]
        tasks = readers + writers + clocks
        passed_on = asyncio.gather(*readers, *writers)
        broken = True
        try:
            await asyncio.wait((passed_on, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if not passed_on.done() and self._ended.result() == "close":
                await self._finish(readers, [up, down], writers)
            outcome = f"drop-{self._ended.result()}" if self._ended.done() else "closed"
            if passed_on.done() and not passed_on.cancelled() and isinstance(passed_on.exception(), OSError):
                outcome = "reset"
            broken = outcome in ("reset", "drop-reset")
            return outcome
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, passed_on, return_exceptions=True)
            for sock in (self._near, self._far):
                _close(sock, reset=broken)

    async def _finish(
        self, readers: list[asyncio.Task[None]], transits: list[_Transit], writers: list[asyncio.Task[None]]
    ) -> None:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for transit in transits:
            await transit.put(0.0, b"")
        await asyncio.wait(writers)

    async def _expire(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._check(self._up, 0)
        self._check(self._down, 0)

    def _check(self, lane: Lane, carried_bytes: int) -> None:
        how = lane.link.ends(self._clock(), opened_at_s=self._opened_at_s, carried_bytes=carried_bytes)
        if how is not None:
            self.end(how)

    async def _read(self, source: socket.socket, lane: Lane, transit: _Transit) -> None:
        loop = asyncio.get_running_loop()
        carried = 0
        while True:
            room = lane.link.piece_bytes
            if not self._stalled:
                room = int(min(room, lane.link.allowance(carried)))
            if room == 0:
                # All that this connection may carry is under way: it ends when that has arrived.
                await self._verdict.wait()
                if not self._stalled:
                    return
                continue
            piece = await loop.sock_recv(source, room)
            due_at_s = await lane.put(len(piece))
            if not self._stalled or not piece:
                await transit.put(due_at_s, piece)
                carried += len(piece)
            if not piece:
                return

    async def _write(self, target: socket.socket, lane: Lane, transit: _Transit) -> None:
        loop = asyncio.get_running_loop()
        carried = 0
        while True:
            due_at_s, piece = await transit.get()
            await lane.until(due_at_s)
            if not piece:
                if not self._stalled:
                    target.shutdown(socket.SHUT_WR)
                return
            if not self._stalled:
                lane.delivered(len(piece), due_at_s)
                await loop.sock_sendall(target, piece)
                carried += len(piece)
                self._check(lane, carried)
            transit.done()


def _close(sock: socket.socket, *, reset: bool) -> None:
    if reset and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class PhoneLink:
    """Both lanes of one phone and the connections that share them; must be made inside a running event loop."""

    def __init__(self, profile: Profile, seed: int, log: Log | None = None) -> None:
        loop = asyncio.get_running_loop()
        origin_s = loop.time()
        self.profile = profile
        self._clock: Callable[[], float] = lambda: loop.time() - origin_s
        self.up = Lane(profile.up, seed, self._clock)
        self.down = Lane(profile.down, seed, self._clock)
        self._log = log
        self._connections: dict[asyncio.Task[None], Connection] = {}
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
        connection = Connection(near, far, self.up, self.down, self._clock)
        task = asyncio.create_task(self._run(connection, self._count))
        self._connections[task] = connection
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        # Also a task that was cancelled before its first step must not keep its two descriptors.
        self._connections.pop(task).release()

    async def _run(self, connection: Connection, number: int) -> None:
        self._note(connection=number, event="open")
        outcome = await connection.run()
        self._note(connection=number, event=outcome, up=self.up.counters.delivered_bytes)

    def _note(self, **facts: object) -> None:
        if self._log is not None:
            self._log({"t_s": round(self._clock(), 6), "link": self.profile.name, **facts})

    def end(self, how: Ending) -> None:
        """End all connections that are open now."""
        for connection in self._connections.values():
            connection.end(how)

    async def close(self) -> None:
        """End everything and wait until no task and no descriptor is left."""
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
        """Return the phone's end of a relayed connection, non-blocking; raises OSError if the target refuses."""
        profile = self._link.profile
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

    async def close(self) -> None:
        """End all connections; leaves no task and no descriptor of the relay."""
        await self._link.close()
