"""A root, two gateways and a swarm for each, started as a user starts them."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes
FLAGS = ["--data", "digits", "--phones", "4", "--cohort", "4", "--rounds", "2", "--epochs", "1", "--lr", "0.05",
         "--uplink", "rotate | eden(1)", "--downlink", "rotate | eden(4)"]  # fmt: skip


def listening(log: Path, process: "subprocess.Popen[bytes]", limit_s: float = 120.0) -> str:
    until_s = time.monotonic() + limit_s
    while not (found := re.search(r"listening on (\S+)", log.read_text())):
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
        return start(f"{name}.log", "server.cli", "serve", "--port", "0", "--runs", str(tmp_path), "--name", name,
                     *FLAGS, *flags)  # fmt: skip

    try:
        one = serve("one")
        swarm = start("swarm.log", "edge_client.cli", "swarm", "--count", "4", "--shard", "0/4", "--server",
                      listening(tmp_path / "one.log", one))  # fmt: skip
        assert (one.wait(120), swarm.wait(60)) == (0, 0)
        root = serve("root", "--gateways", "2")
        address = listening(tmp_path / "root.log", root)
        gateways = [serve(f"g{n}", "--gateway-of", address, "--gateway", f"{n}/2") for n in (0, 1)]
        swarms = [
            start(f"swarm{n}.log", "edge_client.cli", "swarm", "--count", "2", "--shard", f"{2 * n}/4", "--server",
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
