"""What a killed `fl-bench run` leaves: no process of its own, and cells that `--resume` finishes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.processes
TIMEOUT_S = 60.0
SCENARIO = """
problem = "digits/tiny"
phones = 4
cohort = 4
rounds = 150
eval_every = 1000
train = "none"
"""


def start(file: Path, *flags: str) -> "subprocess.Popen[str]":
    # In a session of its own, as a terminal starts it: Ctrl-C is for the whole of it.
    return subprocess.Popen(
        [sys.executable, "-m", "featherfed.fl_bench.cli", "run", str(file), "--out", str(file.parent), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


def under_way(folder: Path) -> int:
    return sum((database.parent / "done").exists() is False for database in folder.glob("*/run.sqlite"))


def killed(parent: "subprocess.Popen[str]", kill: Callable[[int], None]) -> tuple[str, list[psutil.Process]]:
    """Kill the parent, wait for it; return what it said and those of its descendants that do not follow it."""
    family = psutil.Process(parent.pid).children(recursive=True)
    assert family
    kill(parent.pid)
    _, said = parent.communicate(timeout=TIMEOUT_S)
    return said, psutil.wait_procs(family, timeout=10)[1]


def interrupt_session(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


def interrupt_alone(pid: int) -> None:
    os.kill(pid, signal.SIGINT)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [interrupt_session, interrupt_alone, kill])
def test_workers_end_with_their_grid_and_resume_finishes_it(end: Callable[[int], None], tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(f"{SCENARIO}seed = [0, 1, 2]\n")
    grid = start(file, "--virtual", "--jobs", "2")
    wait_until(lambda: under_way(tmp_path / "grid") == 2, "two cells did not begin")
    said, left = killed(grid, end)
    assert not left
    assert "Traceback" not in said
    assert grid.returncode != 0
    if end in (interrupt_session, interrupt_alone):
        assert "interrupted; go on with --resume" in said
    assert under_way(tmp_path / "grid")
    if end is kill:
        again = start(file, "--virtual", "--jobs", "2", "--resume")
        _, said = again.communicate(timeout=TIMEOUT_S)
        assert again.returncode == 0, said
        facts = [json.loads(path.read_text()) for path in sorted((tmp_path / "grid").glob("*/cell.json"))]
        assert [each["cell"] for each in facts] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


@pytest.mark.parametrize(("way", "jobs"), [("processes", "1"), ("swarm", "2")])
def test_servers_and_phones_end_with_their_grid(way: str, jobs: str, tmp_path: Path) -> None:
    file = tmp_path / "real.toml"
    file.write_text(f'{SCENARIO}as = "{way}"\nseed = [0, 1]\nbandwidth = "64kbps"\n')
    grid = start(file, "--jobs", jobs)

    def all_connected() -> bool:
        logs = [path.read_text() for path in (tmp_path / "real").glob("*.logs/server.log")]
        return len(logs) == int(jobs) and all("4/4 connected" in log for log in logs)

    wait_until(all_connected, "the phones did not come")
    _, left = killed(grid, kill)
    assert not left


@pytest.mark.parametrize("end", [interrupt_session, interrupt_alone, kill])
def test_processes_that_train_end_with_their_run(end: Callable[[int], None], tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(SCENARIO.replace('train = "none"\n', "epochs = 5\n"))
    run = start(file, "--virtual", "--workers", "3")

    def trains() -> bool:
        children = psutil.Process(run.pid).children()
        return len(children) == 2 and all(child.cpu_times().user > 1 for child in children)

    wait_until(trains, "two processes did not begin")
    said, left = killed(run, end)
    assert not left
    assert "Traceback" not in said
    assert run.returncode != 0
