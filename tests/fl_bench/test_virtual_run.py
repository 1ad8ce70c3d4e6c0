"""The server and phones in virtual time."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from featherfed import simulation
from featherfed.bandwidth_sim.drop import DropRule
from featherfed.bandwidth_sim.profile import find_profile
from featherfed.bandwidth_sim.virtual_connection import VirtualTransport
from featherfed.errors import LocalError
from featherfed.fl_bench.cells import cell_report
from featherfed.fl_bench.grid import run_grid
from featherfed.fl_bench.scenario import read_scenario
from featherfed.server.config import config_from
from featherfed.server.storage.run_folder import create
from featherfed.server.storage.store import Store
from featherfed.server.watchers.watcher import Watcher
from featherfed.simulation import Fleet

SMALL = 'problem = "digits"\nphones = 4\ncohort = 3\nlr = 0.05\nbatch_size = 40\n'


def virtual(tmp_path: Path, text: str, out: str = "out", *, jobs: int = 1, rounds: int = 2) -> list[dict[str, Any]]:
    path = tmp_path / f"{out}.toml"
    path.write_text(f"{SMALL}rounds = {rounds}\n{text}")
    cells = read_scenario(path, way="virtual")
    run_grid(cells, tmp_path / out, None, jobs=jobs)
    return [cell_report(cell, tmp_path / out) for cell in cells]


def test_the_same_seed_gives_the_same_run_again_and_another_seed_another(tmp_path: Path) -> None:
    text = 'link = { "2g" = 0.5, "lossy-3g" = 0.5 }\ndropout = 0.3\naway = "5s"\n'
    first, again = virtual(tmp_path, text, "first"), virtual(tmp_path, text, "again")
    assert [report["rounds"] for report in first] == [report["rounds"] for report in again]
    assert first[0]["rounds"] != virtual(tmp_path, text + "seed = 1\n", "other")[0]["rounds"]


def test_phones_that_leave_are_missed_and_come_back(tmp_path: Path) -> None:
    text = 'train = "none"\naway = "200s"\nbandwidth = "256kbps"\nheartbeat = 5.0\ndeadline = 30.0\n'
    [leave] = virtual(tmp_path, text + "dropout = 0.4\n", "leave", rounds=8)
    [stay] = virtual(tmp_path, text, "stay", rounds=8)
    assert all((row["accepted"], row["failed"]) == (3, 0) for row in stay["rounds"])
    missed = [row for row in leave["rounds"] if row["failed"]]
    assert missed
    assert min(row["seconds"] for row in missed) > 29 > max(row["seconds"] for row in stay["rounds"])
    # Each return is a new connection.
    assert leave["totals"]["uplink"]["handshake"] > stay["totals"]["uplink"]["handshake"]


def test_time_is_emulated_and_devices_count(tmp_path: Path) -> None:
    slow, fast = virtual(tmp_path, 'device = ["1min", "10ms"]\n', rounds=1)
    assert slow["rounds"][0]["seconds"] >= 540 > 60 > fast["rounds"][0]["seconds"]
    assert slow["rounds"][0]["loss"] == fast["rounds"][0]["loss"]


def test_worker_processes_give_the_same_results(tmp_path: Path) -> None:
    text = 'train = "none"\nuplink = ["float32", "rotate | eden(1)"]\nlink = "3g"\n'
    assert virtual(tmp_path, text, "one") == virtual(tmp_path, text, "two", jobs=2)


def test_a_finished_cell_is_never_run_twice_and_an_interrupted_one_again(tmp_path: Path) -> None:
    text = 'train = "none"\nseed = [0, 1]\n'
    virtual(tmp_path, text)
    first, second = (tmp_path / "out" / f"seed={seed}" for seed in (0, 1))
    before = [(folder / "run.sqlite").stat().st_mtime_ns for folder in (first, second)]
    (second / "done").unlink()
    virtual(tmp_path, text)
    after = [(folder / "run.sqlite").stat().st_mtime_ns for folder in (first, second)]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_run_that_cannot_end_says_why(tmp_path: Path) -> None:
    text = 'train = "none"\ndeadline = 1.0\nmax_retries = 1\nbandwidth = "1kbps"\n'
    with pytest.raises(LocalError, match=r"the run in .*run pauses: .*round 1"):
        virtual(tmp_path, text)


def test_a_run_whose_phones_fail_says_why_they_did(tmp_path: Path) -> None:
    with pytest.raises(
        LocalError, match=r"pauses: .* faults of phones, the last of phone-\d: .*training diverged in round 1"
    ):
        virtual(tmp_path, "weight_decay = 1e9\nmax_retries = 0\n")


@pytest.mark.parametrize("text", ["", 'mode = "async"\n', 'downlink = "float32"\nuplink = "float32"\n'])
def test_a_run_that_takes_no_time_comes_to_its_end(tmp_path: Path, text: str) -> None:
    # No link, no device and no training: the clock stands at 0, and no limit may wait for it.
    path = tmp_path / "still.toml"
    path.write_text(f'problem = "digits/tiny"\nphones = 1\nrounds = 250\ntrain = "none"\neval_every = 250\n{text}')
    [cell] = read_scenario(path, way="virtual")
    run_grid([cell], tmp_path, None)
    report = cell_report(cell, tmp_path)
    assert [row["accepted"] for row in report["rounds"]] == [1] * 250
    assert report["rounds"][-1]["seconds"] == 0


Event = tuple[float, int, str, int]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_messages_that_pass_whole_come_when_their_frames_would_and_count_alike(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over links that cut them: every event of the network, to the byte, and every count of the ledger."""
    drop = DropRule(after_bytes=5_000)
    profile = find_profile("3g")
    profile = replace(profile, up=replace(profile.up, drop=drop), down=replace(profile.down, drop=drop))
    config = config_from(
        {"problem": "digits/tiny", "phones": 4, "cohort": 3, "rounds": 2, "uplink": "float32", "downlink": "float32",
         "mode": mode}
    )  # fmt: skip
    started, logs, counts = simulation.run, [], []
    for wholes in (True, False):
        log: list[Event] = []

        def noted(main: Any, *, log: list[Event] = log, **settings: Any) -> Any:
            return started(main, log=lambda *event: log.append(event), **settings)

        monkeypatch.setattr(simulation, "run", noted)
        monkeypatch.setattr(VirtualTransport, "takes_wholes", wholes)
        folder = simulation.simulate(
            config, partial(create, tmp_path / str(wholes), "run", config), Fleet(links=profile, trains=False),
            watcher=Watcher(), workers=1,
        )  # fmt: skip
        logs.append(log)
        counts.append(Store(folder.database).traffic())
    assert logs[0] == logs[1]
    assert any(event == "drop-reset" for _, _, event, _ in logs[0])
    assert counts[0] == counts[1]
    assert sum(traffic.resent for traffic in counts[0].values())
