"""The network of virtual time: who listens where, and each phone's link; `virtual_connection` has the connections."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass

from featherfed.bandwidth_sim.drop import Ending
from featherfed.bandwidth_sim.lane import Lane, handshake
from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.virtual_clock import VirtualClock
from featherfed.bandwidth_sim.virtual_connection import VirtualConnection, VirtualTransport

NetworkLog = Callable[[float, int, str, int], None]
"""Is told of every event: (t_s, connection, event, bytes)."""

FIRST_PORT = 49152
ANY_HOST = "0.0.0.0"
_LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1", "": ANY_HOST, "::": ANY_HOST}


class VirtualLink:
    """Both lanes of one phone in virtual time; the counterpart of `relay.PhoneLink`."""

    def __init__(self, profile: Profile, seed: int, loop: VirtualClock) -> None:
        self.profile = profile
        self.up = Lane(profile.up, seed, loop, loop.arrive_at)
        self.down = Lane(profile.down, seed, loop, loop.arrive_at)
        self._connections: dict[int, VirtualConnection] = {}

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

    def opened(self, number: int, connection: VirtualConnection) -> None:
        """Note a connection."""
        self._connections[number] = connection

    def gone(self, number: int) -> None:
        """Forget a connection."""
        self._connections.pop(number, None)


@dataclass(frozen=True, slots=True)
class VirtualSocket:
    """Stands for a socket that is connected to `address` (host, port) over a link."""

    link: VirtualLink
    address: tuple[str, int]


class VirtualNetwork:
    """Who listens where, and the connections between them."""

    def __init__(self, loop: VirtualClock, log: NetworkLog | None) -> None:
        self.loop = loop
        self._log = log
        self._servers: dict[tuple[str, int], VirtualServer] = {}
        self._connections: dict[int, VirtualConnection] = {}
        self._count = 0
        self._next_port = FIRST_PORT
        self.unlimited = VirtualLink(Profile("unlimited", LinkSpec(), LinkSpec(), "none"), 0, loop)

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

    def _gone(self, link: VirtualLink, number: int) -> None:
        link.gone(number)
        del self._connections[number]
        self.note(number, "closed")

    def close(self) -> None:
        """End what is open, for there is nobody left to tell."""
        for connection in self._connections.values():
            connection.vanish()

    def _listener(self, host: str, port: int) -> "VirtualServer | None":
        return self._servers.get((host, port)) or self._servers.get((ANY_HOST, port))

    def _server_at(self, address: tuple[str, int]) -> "VirtualServer":
        server = self._listener(*address)
        if server is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address!r}")
        return server

    async def dial(self, link: VirtualLink, host: str, port: int) -> VirtualSocket:
        """Return what stands for a connected socket, after one round trip; raises ConnectionRefusedError."""
        await handshake(link.up, link.down)
        address = _LOCAL.get(host, host), port
        self._server_at(address)
        return VirtualSocket(link, address)

    async def connect(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], sock: VirtualSocket
    ) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        """Give both ends of a dialled connection their protocols."""
        server = self._server_at(sock.address)
        self._count += 1
        number = self._count
        connection = VirtualConnection(
            (sock.link.up, sock.link.down),
            number,
            loop=self.loop,
            note=self.note,
            over=lambda: self._gone(sock.link, number),
            server_context=server.context,
            server_address=sock.address,
        )
        self._connections[number] = connection
        sock.link.opened(number, connection)
        self.note(number, "open")
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

    def accept(self, transport: VirtualTransport) -> None:
        """Give a new connection's end its protocol."""
        if not self._serving:
            self._backlog.append(transport)
            return
        transport.set_protocol(self._factory())
        self._network.loop.call_soon(transport.begin, context=self.context)
