"""A root and its gateways, started as a user starts them, one by one or by one command, and killed."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from featherfed.server.door import tokens
from tests.gateway.held import HeldPhones
from tests.gateway.trees import SETTINGS
from tests.processes.trees import GATEWAY, LISTENING, flags, programs
from tests.serving import serving

pytestmark = pytest.mark.processes
FLAGS = ["--problem", "digits", "--phones", "4", "--cohort", "4", "--rounds", "2", "--epochs", "1", "--lr", "0.05",
         "--uplink", "rotate | eden(1)", "--downlink", "rotate | eden(4)"]  # fmt: skip


def listening(log: Path, process: "subprocess.Popen[bytes]", limit_s: float = 120.0) -> str:
    until_s = time.monotonic() + limit_s
    while not (found := re.search(r"listening on ([^\s\"]+)", log.read_text())):
        assert process.poll() is None and time.monotonic() < until_s, log.read_text()
        time.sleep(0.05)
    return found[1]


def test_root_gateways_and_swarms_make_the_model_of_one_server(tmp_path: Path) -> None:
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str) -> "subprocess.Popen[bytes]":
        with open(tmp_path / name, "w") as log:
            running.append(subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log))
        return running[-1]

    def serve(name: str, *flags: str) -> "subprocess.Popen[bytes]":
        return start(f"{name}.log", "featherfed.commands.server", "serve", "--port", "0", "--runs", str(tmp_path),
                     "--name", name,
                     *FLAGS, *flags)  # fmt: skip

    try:
        one = serve("one")
        swarm = start("swarm.log", "featherfed.edge_client.cli", "swarm", "--train", "none", "--count", "4",
                      "--shard", "0/4",
                      "--server",
                      listening(tmp_path / "one.log", one))  # fmt: skip
        assert (one.wait(120), swarm.wait(60)) == (0, 0)
        root = serve("root", "--gateways", "2")
        address = listening(tmp_path / "root.log", root)
        gateways = [
            serve(f"g{n}", "--gateway-of", address, "--gateway", f"{n}/2", "--log-format", log_format)
            for n, log_format in enumerate(("text", "json"))
        ]
        swarms = [
            start(f"swarm{n}.log", "featherfed.edge_client.cli", "swarm", "--train", "none", "--count", "2",
                  "--shard", f"{2 * n}/4", "--server",
                  listening(tmp_path / f"g{n}.log", gateways[n]))
            for n in (0, 1)
        ]  # fmt: skip
        ended = [process.wait(120) for process in (root, *gateways, *swarms)]
        assert ended == [0] * 5, [log.read_text()[-500:] for log in tmp_path.glob("*.log")]
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "root")]
    assert models[0] == models[1]
    assert (tmp_path / "g0.log").read_text().startswith("listening on ")
    events = [json.loads(line) for line in (tmp_path / "g1.log").read_text().splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("listening", "note")
    assert events[-1]["message"] == (tmp_path / "g0.log").read_text().splitlines()[-1]


SERVE = ["serve", "--port", "0", "--no-dashboard", "--runs"]
ROW = range(3)
"""The shards of the gateway that is killed."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model that one server makes of the run, without any trouble."""

    async def run(folder: Path) -> bytes:
        phones = HeldPhones(SETTINGS, ROW, 1)
        phones.may.set()
        async with serving(folder, **SETTINGS) as served:
            await asyncio.gather(*phones.start([served.address]))
            assert await served.ended is None
        return (folder / "run" / "model.safetensors").read_bytes()

    return asyncio.run(run(tmp_path_factory.mktemp("calm")))


async def test_gateway_that_was_killed_goes_on_with_resume_in_the_middle_of_its_round(
    tmp_path: Path, calm: bytes
) -> None:
    phones = HeldPhones(SETTINGS, ROW, 2)
    with programs(tmp_path) as started:
        started.start("root", *SERVE, str(tmp_path), "--name", "root", *flags({**SETTINGS, "gateways": 2}))
        root = (await started.said("root", LISTENING))[1]

        def gateway(index: int) -> list[str]:
            return [*SERVE, str(tmp_path), "--gateway-of", root, "--gateway", f"{index}/2"]

        for index in (0, 1):
            started.start(f"g{index}", *gateway(index), *flags(SETTINGS))
        places = [(await started.said(f"g{index}", LISTENING))[1] for index in (0, 1)]
        playing = phones.start(places)
        await asyncio.wait_for(phones.in_the_middle(), 60)
        started.running["g0"].kill()
        started.running["g0"].wait()
        port = ["--port", places[0].rpartition(":")[2]]
        started.start("again", *gateway(0), "--resume", str(tmp_path / "gateway-0-of-2"), *port)
        assert (await started.said("again", LISTENING))[1] == places[0]
        phones.may.set()
        await phones.end(playing)
        assert [await started.ended(name) for name in ("root", "g1", "again")] == [0, 0, 0]
    assert (tmp_path / "root" / "model.safetensors").read_bytes() == calm
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * SETTINGS["cohort"], "nobody trained twice"


@pytest.mark.parametrize("moves", [False, True])
async def test_tree_starts_a_killed_gateway_again_and_the_round_ends_with_all_updates(
    tmp_path: Path, calm: bytes, moves: bool
) -> None:
    phones = HeldPhones(SETTINGS, ROW, 2)
    with programs(tmp_path) as started:
        started.start("tree", "tree", "--port", "0", "--gateway-port", "0", "--no-dashboard", "--runs", str(tmp_path),
                      "--name", "run", *flags({**SETTINGS, "gateways": 2}))  # fmt: skip
        first, second = [await started.said("tree", GATEWAY.format(index)) for index in (0, 1)]
        playing = phones.start([second[1], first[1]])
        await asyncio.wait_for(phones.in_the_middle(), 60)
        if moves:
            shutil.rmtree(tmp_path / "run" / "gateway-0")
        os.kill(int(first[2]), signal.SIGKILL)
        again = await started.said("tree", GATEWAY.format(0), count=2)
        assert again[1] == first[1] and again[2] != first[2]
        phones.may.set()
        await phones.end(playing)
        assert await started.ended("tree") == 0
        log = started.log("tree")
    assert "gateway 0 died (signal 9, SIGKILL); it is started again" in log
    assert re.findall(r"^round (\d)/3  gateways (\d/\d)  updates (\d)", log, re.MULTILINE) == [
        (str(number), "2/2", "4") for number in (1, 2, 3)
    ]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == calm
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * SETTINGS["cohort"], "nobody trained twice"


async def test_interrupt_pauses_a_tree_with_all_its_processes_and_resume_goes_on(tmp_path: Path, calm: bytes) -> None:
    phones = HeldPhones(SETTINGS, ROW, 2)
    with programs(tmp_path) as started:
        command = ["tree", "--port", "0", "--gateway-port", "0", "--no-dashboard"]
        process = started.start(
            "tree", *command, "--runs", str(tmp_path), "--name", "run", *flags({**SETTINGS, "gateways": 2})
        )
        places = [(await started.said("tree", GATEWAY.format(index)))[1] for index in (0, 1)]
        playing = phones.start(places)
        await asyncio.wait_for(phones.in_the_middle(), 60)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        phones.may.set()
        ends = await asyncio.wait_for(asyncio.gather(*playing, return_exceptions=True), 60)
        assert all("the run pauses: the operator stopped the run" in str(end) for end in ends), ends
        assert await started.ended("tree") == 0
        assert f"go on with: fl-server tree --resume {tmp_path / 'run'}" in started.log("tree")
        assert not psutil.wait_procs(children, timeout=10)[1]
        # Killed outright, it takes its gateways along too: their ports are free again.
        process = started.start("killed", *command, "--resume", str(tmp_path / "run"))
        await started.said("killed", GATEWAY.format(0))
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(children, timeout=10)[1]
        started.start("again", *command, "--resume", str(tmp_path / "run"))
        places = [(await started.said("again", GATEWAY.format(index)))[1] for index in (0, 1)]
        await phones.end(phones.start(places))
        assert await started.ended("again") == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == calm


async def test_command_that_a_paused_tree_goes_on_with_has_its_gateways_at_the_same_ports(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = flags({**SETTINGS, "gateways": 1})
    with programs(tmp_path) as started:
        command = ["tree", "--port", "0", "--gateway-port", port, "--max-connections", "70", "--no-dashboard"]
        command += ["--no-durable", "--decode-threads", "2", "--data-dir", str(tmp_path / "my data")]
        process = started.start("tree", *command, "--runs", str(tmp_path), "--name", "run", *settings)
        await started.said("tree", GATEWAY.format(0))
        process.send_signal(signal.SIGINT)
        assert await started.ended("tree") == 0
        again = f"fl-server tree --resume {tmp_path / 'run'} --max-connections 70 --gateway-port {port}"
        again += f" --data-dir '{tmp_path / 'my data'}' --no-durable --decode-threads 2 --no-dashboard"
        assert f"go on with: {again}\n" in started.log("tree")


async def test_tree_over_tls_lets_its_own_gateways_in_where_phones_need_a_token(
    tmp_path: Path, authority: dict[str, Path], calm: bytes
) -> None:
    token = tokens.add(tmp_path / "tokens.json", "p*")
    phones = HeldPhones(SETTINGS, ROW, 1, token=token, ca=str(authority["ca"]))
    phones.may.set()
    with programs(tmp_path) as started:
        started.start("tree", "tree", "--port", "0", "--gateway-port", "0", "--no-dashboard", "--runs", str(tmp_path),
                      "--name", "run", "--tls-cert", str(authority["cert"]), "--tls-key", str(authority["key"]),
                      "--gateway-ca", str(authority["ca"]), *flags({**SETTINGS, "gateways": 2}))  # fmt: skip
        places = [(await started.said("tree", GATEWAY.format(index)))[1] for index in (0, 1)]
        assert all(place.startswith("wss://127.0.0.1:") for place in places)
        await phones.end(phones.start(places))
        assert await started.ended("tree") == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == calm
