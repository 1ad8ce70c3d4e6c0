"""The server of `python -m lab ingest`: `Service` as `fl-server serve` runs it, in a process that says what it costs.

Its first line of input is what to serve; every further line is answered with what was used since the one before: CPU
time, resident memory now and at its peak, and how late the event loop woke a timer. `echo` serves the bare websockets
library instead, with the same settings, and nothing behind it.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.memory import resident_bytes

TICK_S = 0.005


class Meter:
    """Looks at this process from inside."""

    def __init__(self) -> None:
        self._late_s: list[float] = []
        self._cpu_s = time.process_time()

    async def tick(self) -> None:
        """Note how late every timer is, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self._late_s.append(loop.time() - due_s)

    def read(self) -> dict[str, Any]:
        """Return what was used since the last call."""
        late = sorted(self._late_s) or [0.0]
        cpu_s = time.process_time()
        used = {
            "cpu_s": cpu_s - self._cpu_s,
            "lag_p50_ms": 1e3 * late[len(late) // 2],
            "lag_p99_ms": 1e3 * late[min(len(late) - 1, len(late) * 99 // 100)],
            "rss": resident_bytes("VmRSS"),
            "peak": resident_bytes("VmHWM"),
        }
        self._late_s.clear()
        self._cpu_s = cpu_s
        # From proc(5): 5 sets the peak back to what is resident now.
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return used


async def _answer(meter: Meter) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ticking = asyncio.create_task(meter.tick())
    while await reader.readline():
        print(json.dumps(meter.read()), flush=True)
    ticking.cancel()


async def _echo() -> None:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed

    async def again(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with serve(again, "127.0.0.1", 0, compression=None, ping_interval=None, max_queue=4) as server:
        print(json.dumps({"port": next(iter(server.sockets)).getsockname()[1]}), flush=True)
        await _answer(Meter())


async def _serve(settings: dict[str, Any], durable: bool, data_dir: str | None, runs: Path) -> None:
    from featherfed.server.allocator import give_back_vectors, spare_the_collector
    from featherfed.server.config import config_from
    from featherfed.server.door.entrance import Entrance, EntranceOptions
    from featherfed.server.door.limits import HANDSHAKES
    from featherfed.server.model.aggregation import Aggregator
    from featherfed.server.rounds.resume_point import begin
    from featherfed.server.service import Service
    from featherfed.server.storage.run_folder import create
    from featherfed.server.storage.store import Store
    from featherfed.server.watchers.watcher import Watcher

    give_back_vectors()
    config = config_from(settings)
    # No phone of the bench has a second connection; twice their number may be more files than the system allows.
    options = EntranceOptions(host="127.0.0.1", port=0, max_connections=config.phones + HANDSHAKES)
    with Entrance(options, runs, config.phones) as entrance:
        aggregator = Aggregator(config, data_dir)
        # What torch reads of its own code for that stays: it belongs to the server at rest.
        aggregator.evaluate()
        folder = create(runs, "ingest", config)
        store = Store(folder.database, durable=durable)
        try:
            start = begin(config, store, aggregator)
            service = Service(config, folder, aggregator, store, start, Watcher())
            print(json.dumps({"port": entrance.socket.getsockname()[1]}), flush=True)
            spare_the_collector()
            serving = asyncio.create_task(service.run(entrance))
            answering = asyncio.create_task(_answer(Meter()))
            await asyncio.wait((serving, answering), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                service.stop()
            await serving
        finally:
            store.close()


def _line(descriptor: int) -> bytes:
    """Return one line and read no byte beyond it: the event loop reads the rest."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


def main() -> None:
    """Serve what the first line says, until the input ends."""
    order = json.loads(_line(sys.stdin.fileno()))
    if order.get("echo"):
        asyncio.run(_echo())
        return
    with tempfile.TemporaryDirectory(prefix="featherfed-ingest-", dir=order["folder"]) as runs:
        asyncio.run(_serve(order["settings"], order["durable"], order["data_dir"], Path(runs)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
