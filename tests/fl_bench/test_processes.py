import subprocess
from pathlib import Path

import pytest

from featherfed.errors import LocalError
from featherfed.fl_bench.processes import Processes


@pytest.mark.processes
def test_server_that_does_not_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        with pytest.raises(LocalError, match="unknown problem 'resnet'"):
            processes.start_server(["--runs", str(tmp_path), "--problem", "resnet"], lambda line: None)
        running = dict(processes._running)
    assert all(process.poll() is not None for process in running.values())


@pytest.mark.processes
def test_leaving_ends_what_still_runs_by_its_own_pid(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        phone: subprocess.Popen[str] = processes.start_phone(
            "phone-0", ["--train", "none", "--server", "ws://127.0.0.1:9", "--patience", "10min"]
        )
        assert phone.poll() is None
    assert phone.poll() is not None
    assert (tmp_path / "logs" / "phone-0.log").exists()
