import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featherfed.errors import LocalError
from featherfed.fl_bench import processes
from featherfed.fl_bench.processes import Processes


@pytest.mark.processes
def test_server_that_does_not_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as running:
        with pytest.raises(LocalError, match="unknown problem 'resnet'"):
            running.start_server(["--runs", str(tmp_path), "--problem", "resnet"], lambda event: None)
        started = dict(running._running)
    assert all(process.poll() is not None for process in started.values())


@pytest.mark.processes
def test_what_a_server_does_is_told_by_events_and_kept_in_its_log(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    settings = ["--problem", "digits", "--phones", "1", "--rounds", "2", "--dashboard", "127.0.0.1:0"]
    with Processes(tmp_path / "logs") as running:
        address = running.start_server(["--runs", str(tmp_path), "--name", "run", *settings], told.append)
        # Whoever starts it has its addresses at once.
        assert (told[0]["event"], told[0]["address"]) == ("listening", address)
        assert told[0]["page"].startswith("http://127.0.0.1:")
        running.start_phone("phone", ["--server", address, "--train", "none"])
        assert running.wait_for_server(60) == 0
    closed = [event for event in told if event["event"] == "round_closed"]
    assert [(event["round_number"], event["accepted"]) for event in closed] == [(1, 1), (2, 1)]
    assert [json.loads(line) for line in (tmp_path / "logs" / "server.log").read_text().splitlines()] == told


@pytest.mark.processes
def test_leaving_ends_what_still_runs_by_its_own_pid(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as running:
        phone: subprocess.Popen[str] = running.start_phone(
            "phone-0", ["--train", "none", "--server", "ws://127.0.0.1:9", "--patience", "10min"]
        )
        assert phone.poll() is None
    assert phone.poll() is not None
    assert (tmp_path / "logs" / "phone-0.log").exists()


@pytest.mark.parametrize("over", [False, True])
def test_server_whose_run_is_over_may_stay_for_phones_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    with Processes(tmp_path / "logs") as running:
        stays = [sys.executable, "-c", "import time; time.sleep(4)"]
        running._running["server"] = subprocess.Popen(stays, text=True)
        running._running["phone-0"] = subprocess.Popen([sys.executable, "-c", ""], text=True)
        running._over = over
        if over:
            assert running.wait_for_server() == 0
        else:
            with pytest.raises(LocalError, match="they left in order; all phones ended before the server did"):
                running.wait_for_server()


@pytest.mark.processes
def test_what_the_phones_failed_of_comes_before_that_all_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 1.0)
    settings = ["--problem", "digits", "--phones", "1", "--no-dashboard"]
    with Processes(tmp_path / "logs") as running:
        address = running.start_server(["--runs", str(tmp_path), "--name", "run", *settings], lambda event: None)
        running.start_phone("phone-0", ["--server", address, "--shard", "5/7"])
        with pytest.raises(LocalError, match=r"^.*shard.*; all phones ended before the server did; see "):
            running.wait_for_server(60)
        assert list(running.lost_phones()) == ["phone-0"]
