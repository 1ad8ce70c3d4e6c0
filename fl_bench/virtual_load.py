"""What virtual time costs for a fleet: WebSocket echo clients by the thousand, and idle phones for an hour."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from featherfed.bandwidth_sim.profile import find_profile
from featherfed.bandwidth_sim.virtual import VirtualDialer, run

LINKS = ("2g", "3g", "lossy-3g", "subway")
SERVER = "server", 80
ADDRESS = "ws://server:80"
PATIENCE_S = 600.0
"""Longer than any tunnel: no handshake and no ping gives up, so that every run has all of its messages."""


@dataclass(frozen=True, slots=True)
class VirtualLoad:
    """`events`: what network and clients saw, `digest` their SHA-256 in order, `seconds`: real."""

    clients: int
    events: int
    digest: str
    emulated_s: float
    seconds: float
    cpu_s: float


class _Log:
    def __init__(self) -> None:
        self.count = 0
        self.hash = hashlib.sha256()

    def __call__(self, *event: object) -> None:
        self.count += 1
        self.hash.update(f"{event}\n".encode())


async def _echo(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


Visit = Callable[[ClientConnection, int, _Log], Coroutine[Any, Any, None]]
"""What one client does with its connection: (connection, number of the client, log)."""


def _fleet(clients: int, visit: Visit, *, seed: int, within_s: float) -> VirtualLoad:
    """Let so many clients on mixed links connect to one echo server within a time, and do what they do there."""
    log = _Log()

    async def client(number: int) -> None:
        await asyncio.sleep(random.uniform(0, within_s))
        dialer = VirtualDialer(find_profile(LINKS[number % len(LINKS)]), number)
        sock = await dialer.connect(*SERVER)
        # As phones do: the server pings, and both ends see that the connection lives.
        async with connect(
            ADDRESS, sock=sock, compression=None, proxy=None, open_timeout=PATIENCE_S, ping_interval=None
        ) as websocket:
            await visit(websocket, number, log)

    async def main() -> float:
        async with (
            serve(_echo, *SERVER, compression=None, open_timeout=PATIENCE_S, ping_timeout=PATIENCE_S),
            asyncio.TaskGroup() as group,
        ):
            for number in range(clients):
                group.create_task(client(number))
        return asyncio.get_running_loop().time()

    began_s, cpu_s = time.perf_counter(), time.process_time()
    emulated_s = run(main(), seed=seed, log=log)
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return VirtualLoad(clients, log.count, log.hash.hexdigest(), emulated_s, seconds, cpu_s)


def echo_fleet(clients: int, messages: int, *, seed: int) -> VirtualLoad:
    """Let so many WebSocket clients exchange so many messages of up to 3 kB each with one server."""

    async def exchange(websocket: ClientConnection, number: int, log: _Log) -> None:
        loop = asyncio.get_running_loop()
        for message in range(messages):
            await websocket.send(random.randbytes(random.randrange(1, 3000)))
            log(loop.time(), number, message, await websocket.recv())

    return _fleet(clients, exchange, seed=seed, within_s=5)


def idle_hour(phones: int, *, seed: int = 0) -> VirtualLoad:
    """Keep so many phones connected for an hour in which there are the server's pings and their pongs."""

    async def idle(websocket: ClientConnection, number: int, log: _Log) -> None:
        await asyncio.sleep(3600)

    return _fleet(phones, idle, seed=seed, within_s=5)
