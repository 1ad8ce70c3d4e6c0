"""Between the phones and the server: counts every byte, listens, breaks connections, and outlives them all.

Within TLS it is the phone's server and the server's phone, so that it hears and counts what a plain run would carry.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lab.chaos.wiretap import Conversation, Way, Witness

PIECE_BYTES = 16 * 1024
PART_S = 5.0
LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: a socket that is closed is reset (socket(7))."""

How = Literal["rst", "fin", "silence", "kill"]
End = Literal["phone", "server"]


@dataclass(slots=True)
class Break:
    """Ends one connection of a phone after `left_bytes` more of its transfers `way` have passed, in the middle of one.

    `rst`: the end `at` is reset, the other's stream ends early. `fin`: the stream to the end `at` ends early, and what
    it still says is carried. `silence`: both ways are swallowed until an end gives up. `kill`: the phone's process.
    """

    how: How
    way: Way
    at: End
    left_bytes: int


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the gate. `near` is the phone's."""

    conversation: Conversation
    near: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    deaf: set[Way] = field(default_factory=set)
    """Ways whose bytes are swallowed."""
    reset: set[End] = field(default_factory=set)
    """Which ends are reset when it is over; the others' streams end."""


class _BrokenError(Exception):
    """The connection is over, by a fault of the schedule."""


class Tollgate:
    """Relays to servers' ports; `passed(total)` is told how many bytes it has carried so far, both ways together.

    `phones_tls` is shown to phones, `server_tls` believes the server; `kill(phone)` ends a phone's process.
    """

    def __init__(
        self,
        witness: Witness,
        passed: Callable[[int], None],
        *,
        phones_tls: ssl.SSLContext | None = None,
        server_tls: ssl.SSLContext | None = None,
        kill: Callable[[str], None] = lambda phone: None,
    ) -> None:
        self._witness = witness
        self._passed = passed
        self._phones_tls, self._server_tls = phones_tls, server_tls
        self._kill = kill
        self._open: dict[asyncio.Task[None], _Link] = {}
        self._servers: list[asyncio.Server] = []
        self._targets: list[int] = []
        self._breaks: dict[str, list[Break]] = {}
        self.up_bytes = self.down_bytes = 0
        """Bytes handed to the server's socket, and bytes taken from it."""
        self.breaks: dict[How, int] = dict.fromkeys(("rst", "fin", "silence", "kill"), 0)
        """Connections broken so far, by how."""
        self.cut: dict[Way, int] = {"up": 0, "down": 0}
        """Transfers that were under way when their connection ended, for whatever reason."""

    @property
    def carried_bytes(self) -> int:
        """Both ways together."""
        return self.up_bytes + self.down_bytes

    async def open(self, target: int) -> int:
        """Listen on loopback for connections to a server's port, return the port."""
        number = len(self._targets)
        self._targets.append(target)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._accept(number, reader, writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=self._phones_tls)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def aim(self, target: int) -> None:
        """Relay new connections to another port."""
        self._targets = [target] * len(self._targets)

    async def close(self) -> None:
        """End everything."""
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listener in server.sockets:
                loop.remove_reader(listener)
        # Who was accepted just now is met in the loop's next turns: a server that is closed before loses its socket.
        for _ in range(2):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        # What was aborted is closed in the next turn.
        await asyncio.sleep(0)

    def reset(self, phone: str) -> None:
        """Break the connection of a phone now, if it has one: a reset for the phone, an early end for the server."""
        for task, link in list(self._open.items()):
            if link.conversation.phone == phone:
                link.reset.add("phone")
                task.cancel()
                self.breaks["rst"] += 1

    def arm(self, phone: str, fault: Break) -> None:
        """Have a phone's connection broken in the middle of a transfer: this one, or whichever comes to that byte."""
        self._breaks.setdefault(phone, []).append(fault)

    def _accept(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self._witness.connection(), (reader, writer))
        task = asyncio.create_task(self._relay(link, self._targets[number]))
        self._open[task] = link
        task.add_done_callback(self._open.pop)
        # Here, because a task that is cancelled before its first step does nothing at all.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _relay(self, link: _Link, target: int) -> None:
        ways: list[asyncio.Task[None]] = []
        try:
            link.far = await asyncio.open_connection(
                "127.0.0.1", target, ssl=self._server_tls, server_hostname="127.0.0.1" if self._server_tls else None
            )
            for _, writer in (link.near, link.far):
                # As little as can be: within TLS a high water of 0 is reached by nothing at all.
                writer.transport.set_write_buffer_limits(1, 0)
            ways = [
                asyncio.create_task(self._pass(link, link.near[0], link.far[1], "up", "phone")),
                asyncio.create_task(self._pass(link, link.far[0], link.near[1], "down", "server")),
            ]
            # An end of stream is passed on; where one way fails, both do.
            await asyncio.gather(*ways)
        except (OSError, _BrokenError):
            pass
        finally:
            for task in ways:
                task.cancel()
            try:
                await asyncio.gather(*ways, return_exceptions=True)
            finally:
                # A phone that is back already may be broken off again while its old connection parts.
                for way in self.cut:
                    self.cut[way] += link.conversation.loading(way)
                await self._let_go(link)

    async def _let_go(self, link: _Link) -> None:
        ends: list[tuple[End, tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]] = [
            ("phone", link.near),
            ("server", link.far),
        ]
        parting = []
        for end, streams in ends:
            if streams is not None and end in link.reset:
                _reset(streams[1])
            elif streams is not None:
                parting.append(_part(*streams))
        await asyncio.gather(*parting)

    async def _pass(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, source: End
    ) -> None:
        other: End = "server" if source == "phone" else "phone"
        try:
            while data := await reader.read(PIECE_BYTES):
                while data and way not in link.deaf:
                    data = await self._carry(link, writer, way, data)
        except ConnectionResetError:
            # As it came.
            link.reset.add(other)
            raise
        if len(link.deaf) == 2:
            # Nobody on the way knows this connection any more: the next packet is answered with a reset.
            link.reset.add(other)
            raise _BrokenError
        _end(writer)

    async def _carry(self, link: _Link, writer: asyncio.StreamWriter, way: Way, data: bytes) -> bytes:
        """Hand on as much as may pass before a fault is due; return the rest."""
        phone = link.conversation.phone
        fault = next((fault for fault in self._breaks.get(phone, ()) if fault.way == way), None)
        piece = data if fault is None else data[: max(1, fault.left_bytes)]
        writer.write(piece)
        if way == "up":
            self.up_bytes += len(piece)
        else:
            self.down_bytes += len(piece)
        link.conversation.hear(way, piece)
        self._passed(self.carried_bytes)
        await writer.drain()
        if fault is not None and link.conversation.loading(way):
            fault.left_bytes -= len(piece)
            if fault.left_bytes <= 0:
                self._breaks[phone].remove(fault)
                self._break(link, fault)
        return data[len(piece) :]

    def _break(self, link: _Link, fault: Break) -> None:
        self.breaks[fault.how] += 1
        if fault.how == "kill":
            self._kill(link.conversation.phone)
        elif fault.how == "silence":
            link.deaf |= {"up", "down"}
        elif fault.how == "rst":
            link.reset.add(fault.at)
            raise _BrokenError
        else:
            streams = link.near if fault.at == "phone" else link.far
            assert streams is not None, "bytes have passed"
            link.deaf.add("down" if fault.at == "phone" else "up")
            _end(streams[1])


def _end(writer: asyncio.StreamWriter) -> None:
    """End the stream in the middle of whatever it was; TLS has no word of its own for that."""
    if sock := writer.get_extra_info("socket"):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)


def _reset(writer: asyncio.StreamWriter) -> None:
    if sock := writer.get_extra_info("socket"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()


async def _part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let what was carried arrive, and then the end in the middle of whatever it was.

    Closed with answers unread, the kernel would reset the connection, and the server lose what it had not read yet.
    """
    try:
        _end(writer)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PART_S):
                while await reader.read(PIECE_BYTES):
                    pass
    finally:
        writer.transport.abort()
