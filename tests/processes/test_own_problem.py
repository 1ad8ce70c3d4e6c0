"""A problem of the user's own file on real processes: what is wrong with one phone costs no round."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featherfed.fl_bench.cells import report_of
from tests.forked import ForkedProcesses

TASK = """
import torch
import featherfed as ff


def model():
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1))


def table(seed, count):
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return ff.Examples(inputs, (inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])).unsqueeze(1))


@ff.metric(higher_is_better=False)
def mae(outputs, targets):
    return (outputs - targets).abs()


def loss(outputs, targets):
    if len(outputs) >= BROKEN:
        raise RuntimeError("no loss today")
    return torch.nn.functional.mse_loss(outputs, targets) * FACTOR


BROKEN, FACTOR = 1000, 1.0
problem = ff.Problem(
    model, examples=lambda place: table(100 + place.index, 200), test=lambda: table(7, 300), loss=loss,
    metrics={"mae": mae},
)
"""
FLAGS = ["--rounds", "4", "--lr", "0.05", "--epochs", "3", "--uplink", "float32", "--downlink", "float32"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mytask.py").write_text(TASK)
    return tmp_path


def serve(processes: ForkedProcesses, phones: int, *flags: str) -> str:
    base = ["--runs", "runs", "--name", "mine", "--problem", "mytask:problem", "--phones", str(phones)]
    return processes.start_server([*base, *FLAGS, *flags], lambda line: None)


@pytest.mark.processes
def test_own_problem_is_learned_by_phones_that_name_their_copy_of_it(folder: Path) -> None:
    with ForkedProcesses(folder / "logs") as processes:
        address = serve(processes, 3)
        # By module, by path, and one that trains nothing and has no code.
        processes.start_phone("a", ["--server", address, "--problem", "mytask:problem"])
        processes.start_phone("b", ["--server", address, "--problem", "./mytask.py:problem"])
        processes.start_phone("c", ["--server", address, "--train", "none"])
        processes.wait_for_server(timeout_s=120)
    report = report_of(folder / "runs" / "mine")
    losses = [row["loss"] for row in report["rounds"]]
    assert [row["accepted"] for row in report["rounds"]] == [3] * 4
    assert losses[-1] < 0.5 * losses[0]
    assert report["problem"] == "mytask:problem"


BROKEN = {
    "raises": (
        ("BROKEN, FACTOR = 1000, 1.0\n", "BROKEN, FACTOR = 3, 1.0\n"),
        "training fails in round 1 (raises.py, line 22): RuntimeError: no loss today",
    ),
    "diverges": (
        ("BROKEN, FACTOR = 1000, 1.0\n", "BROKEN, FACTOR = 1000, float('nan')\n"),
        "training diverged in round 1",
    ),
    "other_model": (("Linear(16, 1)", "Linear(16, 2)"), "tensor '3.weight' has shape 2×16 here and 1×16 at the server"),
    "no_examples": (
        ("table(100 + place.index, 200)", "table(1, 0)"),
        "there are no examples for shard 4 of 5 on this phone",
    ),
}


@pytest.mark.processes
def test_round_goes_on_without_the_phones_whose_copies_are_broken(folder: Path) -> None:
    for name, (change, _) in BROKEN.items():
        (folder / f"{name}.py").write_text(TASK.replace(*change))
    with ForkedProcesses(folder / "logs") as processes:
        # Far less than the deadline of 600 s: nobody waits for what cannot come.
        address = serve(processes, 5, "--rounds", "2")
        processes.start_phone("good", ["--server", address, "--problem", "mytask:problem", "--shard", "0/5"])
        for shard, name in enumerate(BROKEN, 1):
            given = ["--server", address, "--problem", f"{name}:problem", "--shard", f"{shard}/5"]
            processes.start_phone(name, given)
        processes.wait_for_server(timeout_s=120)
    report = report_of(folder / "runs" / "mine")
    assert [row["accepted"] for row in report["rounds"]] == [1, 1]
    for name, (_, words) in BROKEN.items():
        log = (folder / "logs" / f"{name}.log").read_text()
        assert words in log
        assert "Traceback" not in log


@pytest.mark.processes
def test_server_says_what_does_not_fit_before_it_listens(folder: Path) -> None:
    (folder / "mytask.py").write_text(TASK.replace("BROKEN, FACTOR = 1000", "BROKEN, FACTOR = 1"))
    command = [
        sys.executable,
        "-m",
        "featherfed.commands.server",
        "serve",
        "--problem",
        "mytask:problem",
        "--port",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "listening" not in done.stdout
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(
        "Error: the loss (mytask.py, line 20) does not take outputs of float32 (2, 1) and targets of"
    )
    assert line.endswith("(mytask.py, line 22): RuntimeError: no loss today")
    assert not (folder / "runs").exists()


@pytest.mark.processes
def test_swarm_and_virtual_time_play_it_too(folder: Path) -> None:
    scenario = 'problem = "mytask:problem"\nphones = 4\nrounds = 2\nlr = 0.05\n'
    (folder / "s.toml").write_text(scenario)
    results = {}
    for way in ("virtual", "swarm"):
        command = [sys.executable, "-m", "featherfed.fl_bench.cli", "run", "s.toml", "--out", way, "--json"]
        done = subprocess.run(
            [*command, "--set", f'as="{way}"'], capture_output=True, text=True, timeout=120, cwd=folder
        )
        assert done.returncode == 0, done.stderr
        (results[way],) = json.loads(done.stdout)
    losses = [[row["loss"] for row in each["rounds"]] for each in results.values()]
    assert losses[0] == losses[1]
