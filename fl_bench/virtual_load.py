"""What virtual time costs for a fleet: WebSocket echo clients by the thousand, and idle phones for an hour."""

import asyncio
import hashlib
import random
import time
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from bandwidth_sim.profile import find_profile
from bandwidth_sim.virtual import run
from bandwidth_sim.virtual_network import VirtualDialer

LINKS = ("2g", "3g", "lossy-3g", "subway")
SERVER = "server", 80
ADDRESS = "ws://server:80"


@dataclass(frozen=True, slots=True)
class VirtualLoad:
    """`events`: what network and clients saw, `digest` their SHA-256 in order, `seconds`: real."""

    clients: int
    events: int
    digest: str
    emulated_s: float
    seconds: float


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


def echo_fleet(clients: int, messages: int, *, seed: int) -> VirtualLoad:
    """Let so many WebSocket clients on mixed links come within 5 s and exchange so many messages of up to 3 kB each."""
    log = _Log()

    async def client(number: int) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(random.uniform(0, 5))
        dialer = VirtualDialer(find_profile(LINKS[number % len(LINKS)]), number)
        await dialer.connect(*SERVER)
        interval_s, timeout_s = dialer.keepalive()
        async with connect(
            ADDRESS,
            compression=None,
            proxy=None,
            open_timeout=120,
            ping_interval=interval_s,
            ping_timeout=timeout_s,
        ) as websocket:
            for message in range(messages):
                await websocket.send(random.randbytes(random.randrange(1, 3000)))
                log(loop.time(), number, message, await websocket.recv())

    async def main() -> float:
        async with (
            serve(_echo, *SERVER, compression=None, ping_timeout=120),
            asyncio.TaskGroup() as group,
        ):
            for number in range(clients):
                group.create_task(client(number))
        return asyncio.get_running_loop().time()

    began_s = time.perf_counter()
    emulated_s = run(main(), seed=seed, log=log)
    seconds = time.perf_counter() - began_s
    return VirtualLoad(clients, log.count, log.hash.hexdigest(), emulated_s, seconds)


def idle_hour(phones: int, *, seed: int = 0) -> VirtualLoad:
    """Keep so many phones connected for an hour in which both sides only send their keepalive pings."""
    log = _Log()

    async def phone(number: int) -> None:
        dialer = VirtualDialer(find_profile(LINKS[number % len(LINKS)]), number)
        await dialer.connect(*SERVER)
        interval_s, timeout_s = dialer.keepalive()
        async with connect(
            ADDRESS, compression=None, proxy=None, open_timeout=120, ping_interval=interval_s, ping_timeout=timeout_s
        ):
            await asyncio.sleep(3600)

    async def main() -> float:
        async with (
            serve(_echo, *SERVER, compression=None, ping_interval=20, ping_timeout=120),
            asyncio.TaskGroup() as group,
        ):
            for number in range(phones):
                group.create_task(phone(number))
        return asyncio.get_running_loop().time()

    began_s = time.perf_counter()
    emulated_s = run(main(), seed=seed, log=log)
    seconds = time.perf_counter() - began_s
    return VirtualLoad(phones, log.count, log.hash.hexdigest(), emulated_s, seconds)
