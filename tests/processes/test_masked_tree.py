"""`fl-server tree --secure`, with its gateways and its root killed outright in the middle of rounds."""

import asyncio
import os
import signal
import socket
import sqlite3
from pathlib import Path

import psutil
import pytest

from tests.gateway.held import HeldPhones
from tests.gateway.test_masked_tree import MASKED, ROWS, SUMMED, report_of, two_gateways
from tests.processes.trees import GATEWAY, flags, programs

pytestmark = pytest.mark.processes


async def arrived(folder: Path, round_number: int, wanted: int) -> None:
    """Return when so many updates of a round are on a gateway's disk, and wait for their circle."""
    query = "select count(*) from updates where round = ? and state = 'arrived'"
    for _ in range(6000):
        try:
            with sqlite3.connect(f"file:{folder / 'run.sqlite'}?mode=ro", uri=True) as database:
                ((count,),) = database.execute(query, (round_number,)).fetchall()
        except sqlite3.OperationalError:
            count = 0
        if count == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{count} of {wanted} updates of round {round_number} came")


def two_free_ports() -> int:
    """Return a port that nobody has, and nobody has the next one."""
    while True:
        with socket.socket() as one, socket.socket() as another:
            one.bind(("127.0.0.1", 0))
            try:
                another.bind(("127.0.0.1", one.getsockname()[1] + 1))
            except OSError:
                continue
            return int(one.getsockname()[1])


async def test_masked_tree_goes_on_after_kills_of_all_and_of_a_gateway(tmp_path: Path) -> None:
    calm = await two_gateways(tmp_path / "calm", SUMMED)
    # Whoever looks for its gateway for long is not given up meanwhile.
    settings = {**MASKED, "heartbeat": 40.0}
    phones = HeldPhones(settings, ROWS[0], 2)
    run = tmp_path / "run"
    with programs(tmp_path) as started:
        # Phones look for the tree where it was.
        ports = ["--gateway-port", str(two_free_ports()), "--no-dashboard"]
        process = started.start(
            "tree", "tree", "--port", "0", *ports, "--runs", str(tmp_path), "--name", "run",
            *flags({**settings, "gateways": 2}),
        )  # fmt: skip
        places = [await started.said("tree", GATEWAY.format(index)) for index in (0, 1)]
        playing = phones.start([place[1] for place in places])
        await arrived(run / "gateway-0", 2, 5)
        os.kill(int(places[0][2]), signal.SIGKILL)
        again = await started.said("tree", GATEWAY.format(0), count=2)
        assert again[1] == places[0][1]
        # All at once: the root, and its gateways with it.
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(children, timeout=10)[1]
        started.start("again", "tree", *ports, "--resume", str(run))
        await started.said("again", GATEWAY.format(1))
        phones.may.set()
        await phones.end(playing)
        assert await started.ended("again") == 0
    assert (run / "model.safetensors").read_bytes() == calm.model
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * 12, "nobody trained twice"
    for index in (0, 1):
        report = report_of(run / f"gateway-{index}")
        assert report["totals"]["uplink"]["points"] > 0
        for table in ("chunks", "circles", "lists", "shares"):
            with sqlite3.connect(str(run / f"gateway-{index}" / "run.sqlite")) as database:
                assert database.execute(f"select count(*) from {table}").fetchone() == (0,), table
