"""Real server and phone processes, started as a user starts them."""

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from featherfed.fl_bench.processes import Processes

pytestmark = pytest.mark.processes
TIMEOUT_S = 120.0


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def run(folder: Path, name: str, flags: Sequence[str], phones: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Serve one run to its end with a phone process for each list of flags; return the report's JSON."""
    settings = ["--runs", str(folder), "--name", name, "--problem", "digits", "--phones", str(len(phones)), *flags]
    with Processes(folder / f"{name}-logs") as processes:
        address = processes.start_server(settings, lambda event: None)
        for number, phone in enumerate(phones):
            processes.start_phone(f"{number}", ["--server", address, *phone])
        assert processes.wait_for_server(TIMEOUT_S) == 0
    report = command("featherfed.commands.server", "report", str(folder / name), "--json")
    assert report.returncode == 0, report.stderr
    result: dict[str, Any] = json.loads(report.stdout)
    return result


def test_report_has_exactly_the_fields_that_are_promised(tmp_path: Path) -> None:
    report = run(tmp_path, "a", ["--rounds", "3", "--uplink", "rotate | eden(1)"], [["--train", "none"]] * 4)
    assert list(report) == [
        "run", "problem", "parameters", "uplink", "downlink", "measures", "rounds", "totals", "to_target"
    ]  # fmt: skip
    traffic = {"theory", "payload", "message", "socket", "handshake", "resent", "wasted", "masks", "points"}
    for row in report["rounds"]:
        assert set(row) == {
            "round", "state", "cohort", "accepted", "late", "failed", "loss", "metrics", "accuracy", "seconds",
            "ended_s", "uplink", "downlink", "socket", "handshake",
        }  # fmt: skip
        assert (row["state"], row["cohort"], row["accepted"]) == ("closed", 4, 4)
        for way in ("uplink", "downlink"):
            assert set(row[way]) == traffic
            assert row[way]["theory"] == row[way]["payload"] < row[way]["message"] < row[way]["socket"]
    for way in ("uplink", "downlink"):
        assert report["totals"][way] == {
            name: sum(row[way][name] for row in report["rounds"]) for name in report["totals"][way]
        }
    assert report["to_target"] == dict.fromkeys(f"accuracy={value}" for value in (0.9, 0.95, 0.97, 0.98, 0.99))
    with open(tmp_path / "a" / "rounds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["round"]) for row in rows] == [1, 2, 3]
    assert [int(row["uplink_socket"]) for row in rows] == [row["uplink"]["socket"] for row in report["rounds"]]


def test_same_seed_gives_the_same_model_whatever_the_order_of_the_phones(tmp_path: Path) -> None:
    flags = ["--rounds", "2", "--lr", "0.05", "--uplink", "rotate | eden(2)", "--downlink", "rotate | eden(4)"]
    shards = [["--shard", f"{shard}/2"] for shard in range(2)]
    slow = ["--device", "20ms"]
    first = run(tmp_path, "first", flags, shards)
    other = run(tmp_path, "other", flags, [shards[1], [*shards[0], *slow]])
    bits = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "other")]
    assert bits[0] == bits[1]
    assert [row["loss"] for row in first["rounds"]] == [row["loss"] for row in other["rounds"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_cleanly_and_tells_the_phones_why(tmp_path: Path, number: signal.Signals) -> None:
    flags = ["--runs", str(tmp_path), "--name", "a", "--problem", "digits", "--phones", "2", "--rounds", "9"]
    events: list[dict[str, Any]] = []
    with Processes(tmp_path / "logs") as processes:
        address = processes.start_server(flags, events.append)
        phone = processes.start_phone("phone", ["--server", address, "--train", "none"])
        while not any(event["event"] == "phone_came" for event in events):
            assert phone.poll() is None
        processes.signal_server(number)
        assert processes.wait_for_server(TIMEOUT_S) == 0
        assert phone.wait(TIMEOUT_S) == 1
    said = (tmp_path / "logs" / "phone.log").read_text()
    assert "the run pauses: the operator stopped the run; start this phone again when the run is resumed" in said
    assert "Traceback" not in said + (tmp_path / "logs" / "server.log").read_text()
    assert [event["pause"] for event in events if event["event"] == "ended"] == ["the operator stopped the run"]


@pytest.mark.parametrize(
    "module",
    [
        "featherfed.commands.server",
        "featherfed.edge_client.cli",
        "featherfed.bandwidth_sim.cli",
        "featherfed.fl_bench.cli",
    ],
)
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; heavy = {{'torch', 'numpy', 'sqlalchemy', 'matplotlib', 'websockets', 'sklearn'}};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_phone_needs_little_memory_above_torch(
    tmp_path: Path, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Private memory of a phone that is ready to train, above a process that only imported torch: 60 MB at most.

    Without what numba takes where it is installed: docs/PERFORMANCE.md says how much that is.
    """
    import psutil

    monkeypatch.setenv("FL_FAST", "0")
    code = "import torch, sys; print('there', flush=True); sys.stdin.read()"
    flags = ["--runs", str(tmp_path), "--name", "a", "--phones", "100", "--data-dir", str(mnist_dir)]
    events: list[dict[str, Any]] = []
    with Processes(tmp_path / "logs") as processes:
        address = processes.start_server(flags, events.append)
        phone = processes.start_phone("phone", ["--server", address, "--data-dir", str(mnist_dir)])
        log = tmp_path / "logs" / "phone.log"
        while not re.search(r"ready with 600 examples", log.read_text()):
            assert phone.poll() is None, log.read_text()
        bare = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with bare:
            assert bare.stdout is not None
            bare.stdout.readline()
            private = [psutil.Process(pid).memory_full_info().uss for pid in (phone.pid, bare.pid)]
            bare.kill()
    assert private[0] - private[1] < 60e6
