"""`python -m lab hostile`: what a thousand hostile connections cost the server, and the honest phones beside them.

The same run twice, with real processes: once with the honest phones alone, once besieged. The besiegers come from
another address of this machine. Six of ten are phones that were let in: each announces the largest update there can be
and then sends a byte of it a second. The others come when these are inside and never say a Hello: silent TCP, an HTTP
request of a byte a second, or a silent WebSocket; who is thrown out knocks again half a second later.
"""

import asyncio
import contextlib
import json
import resource
import statistics
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from featherfed.codec.pipeline import Pipeline
from featherfed.errors import FeatherfedError
from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.codec_tables import markdown
from featherfed.fl_bench.processes import Processes
from featherfed.learning.models import layout_of
from featherfed.wire.messages import (
    NOTHING,
    PROTOCOL_VERSION,
    Hello,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    pack,
    unpack,
)
from lab.documents import fill

SOURCE = "127.0.0.2"
HONEST, ROUNDS, PROBLEM, UPLINK, BANDWIDTH = 10, 8, "digits/lite", "float32", "1mbps"
AT_ONCE = 20
"""Handshakes at a time of those who want to be let in."""
KNOCK_S = 0.5
TRICKLE_S = 1.0


def _flags(name: str, runs: Path, phones: int) -> list[str]:
    settings = {
        "--runs": runs, "--name": name, "--problem": PROBLEM, "--uplink": UPLINK,
        "--downlink": "rotate | eden(4)", "--phones": phones, "--cohort": HONEST, "--rounds": ROUNDS,
        "--over-select": phones / HONEST,
    }  # fmt: skip
    return [str(part) for pair in settings.items() for part in pair]


async def _siege(address: str, admitted: int, strangers: int) -> None:
    host, _, port = address.removeprefix("ws://").rpartition(":")
    where: dict[str, Any] = {"local_addr": (SOURCE, 0), "compression": None, "proxy": None}
    largest = Pipeline.parse(UPLINK).max_bytes(layout_of(PROBLEM))

    doorway, inside, names = asyncio.Semaphore(AT_ONCE), asyncio.Event(), set[str]()

    async def announce(number: int) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with doorway:
                connection = await stack.enter_async_context(connect(address, **where))
                await connection.send(pack(Hello(PROTOCOL_VERSION, f"hostile-{number}", NOTHING, 0)))
                message = unpack(await connection.recv(decode=False))
            assert isinstance(message, Welcome), "there is a shard for each"
            names.add(f"hostile-{number}")
            if len(names) == admitted:
                inside.set()
            trickling: asyncio.Task[None] | None = None
            async for frame in connection:
                assert isinstance(frame, bytes), "the server sends binary frames"
                if isinstance(task := unpack(frame), Task | WholeModel):
                    task = task.task() if isinstance(task, WholeModel) else task
                    if trickling is not None:
                        trickling.cancel()
                    trickling = asyncio.create_task(trickle(connection, task.round))

    async def trickle(connection: Any, round_number: int) -> None:
        with contextlib.suppress(ConnectionClosed):
            await connection.send(pack(UpdateBegin(round_number, largest, b"12345678", 1, 0, b"x")))
            for offset in range(1, largest):
                await asyncio.sleep(TRICKLE_S)
                await connection.send(pack(UpdateChunk(offset, b"x")))

    async def silent_tcp(_: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(SOURCE, 0))
        with contextlib.closing(writer):
            await reader.read()

    async def slow_http(_: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(SOURCE, 0))
        with contextlib.closing(writer):
            for byte in b"GET / HTTP/1.1\r\nHost: server\r\nX-Filler: " + b"x" * 10_000:
                writer.write(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), TRICKLE_S)
                    return

    async def silent_websocket(_: int) -> None:
        async with connect(address, **where) as connection:
            await connection.wait_closed()

    async def again(attack: Callable[[int], Awaitable[None]], number: int) -> None:
        if attack is not announce:
            await inside.wait()
        while True:
            await asyncio.sleep(KNOCK_S)
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                await attack(number)

    async with asyncio.TaskGroup() as group:
        for number in range(admitted):
            group.create_task(again(announce, number))
        for number in range(strangers):
            group.create_task(again((silent_tcp, slow_http, silent_websocket)[number % 3], number))


def _run(name: str, folder: Path, hostile: int) -> dict[str, Any]:
    admitted = hostile * 6 // 10
    peak, ended = [0], threading.Event()
    with Processes(folder / f"{name}.logs") as processes:
        flags = _flags(name, folder, HONEST + admitted)
        address = processes.start_server(flags, lambda event: None)

        def watch() -> None:
            while not ended.wait(0.1):
                peak[0] = max(peak[0], processes.server_memory_bytes())

        def besiege() -> None:
            async def until_the_end() -> None:
                siege = asyncio.create_task(_siege(address, admitted, hostile - admitted))
                while not ended.is_set() and not siege.done():
                    await asyncio.sleep(0.1)
                siege.cancel()
                await asyncio.gather(siege, return_exceptions=True)

            asyncio.run(until_the_end())

        threads = [threading.Thread(target=watch)] + ([threading.Thread(target=besiege)] if hostile else [])
        for thread in threads:
            thread.start()
        try:
            phones = ["--server", address, "--count", str(HONEST), "--name", "honest", "--train", "none"]
            processes.start_phone("honest", [*phones, "--bandwidth", BANDWIDTH, "--workers", "1"], "swarm")
            processes.wait_for_server(timeout_s=170)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    report = report_of(folder / name)
    rounds = [row["seconds"] for row in report["rounds"] if row["state"] == "closed"]
    return {
        "hostile": hostile,
        "rounds": len(rounds),
        "accepted": sum(row["accepted"] for row in report["rounds"]),
        "round_s": statistics.median(rounds),
        "longest_round_s": max(rounds),
        "peak_bytes": peak[0],
    }


def _table(calm: dict[str, Any], besieged: dict[str, Any]) -> str:
    columns = ["hostile connections", "rounds", "updates accepted", "median round s", "longest round s", "memory MB"]
    rows = [
        [
            f"{row['hostile']:,}",
            str(row["rounds"]),
            str(row["accepted"]),
            f"{row['round_s']:.2f}",
            f"{row['longest_round_s']:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
        ]
        for row in (calm, besieged)
    ]
    more_mb = (besieged["peak_bytes"] - calm["peak_bytes"]) / 1e6
    factor = besieged["round_s"] / calm["round_s"]
    conclusion = f"The hostile connections cost {more_mb:.0f} MB, and rounds take {factor:.2f} times as long."
    return f"{markdown(columns, rows)}\n\n{conclusion}"


@click.command()
@click.option("--peers", default=1000, show_default=True, type=click.IntRange(10), help="Hostile connections.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def hostile(peers: int, as_json: bool, document: Path | None) -> None:
    """Besiege a server with hostile connections; report its memory and the honest phones' rounds (Linux)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < peers + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, peers + 100), hard))
    with tempfile.TemporaryDirectory(prefix="featherfed-hostile-") as folder:
        try:
            calm = _run("calm", Path(folder), 0)
            besieged = _run("besieged", Path(folder), peers)
        except FeatherfedError as error:
            raise click.ClickException(str(error)) from error
    click.echo(json.dumps({"calm": calm, "besieged": besieged}, indent=1) if as_json else _table(calm, besieged))
    if document is not None:
        fill(document, {"lab hostile": _table(calm, besieged)})
