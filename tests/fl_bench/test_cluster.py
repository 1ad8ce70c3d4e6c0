"""A grid on a real local Ray cluster of two workers, one of which is killed in the middle of its cell.

`fl-bench` is a process of its own here as it is a user's: a driver that Ray ends takes no test worker with it.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from featherfed.fl_bench.cells import cell_report
from featherfed.fl_bench.grid import run_grid
from featherfed.fl_bench.scenario import read_scenario
from tests.commandline.commands import command, run, sentence

pytest.importorskip("ray", reason="needs ray: pip install 'featherfed[ray]'")
pytestmark = [pytest.mark.processes, pytest.mark.filterwarnings("ignore")]
TIMEOUT_S = 120.0
SCENARIO = """
problem = "digits"
phones = 4
cohort = 4
rounds = 20
train = "none"
link = "3g"
seed = [0, 1]
"""


@pytest.fixture
def cluster(ray_turn: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False},
    )
    yield made
    made.shutdown()


def has_a_cell(process: psutil.Process) -> bool:
    """Return whether a process is a worker that has a cell in hand: Ray gives it the task's name."""
    try:
        return "packed_cell" in process.name() or "packed_cell" in "".join(process.cmdline())
    except psutil.Error:
        return False


def busy_workers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if has_a_cell(process)]


def test_cells_survive_the_death_of_a_worker_and_give_what_they_give_locally(tmp_path: Path, cluster: Any) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(SCENARIO)
    given = ["run", str(grid), "--virtual", "--ray", cluster.address, "--out", str(tmp_path / "cluster")]
    with subprocess.Popen(
        command("bench", *given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        try:
            deadline_s = time.monotonic() + TIMEOUT_S
            while not (workers := busy_workers()) and driver.poll() is None:
                assert time.monotonic() < deadline_s, "no worker began"
                time.sleep(0.05)
            if workers:
                workers[0].kill()
            told, _ = driver.communicate(timeout=TIMEOUT_S)
        finally:
            driver.kill()
    assert workers, told
    assert driver.returncode == 0, told
    cells = read_scenario(grid, way="virtual")
    run_grid(cells, tmp_path / "local", None)
    for cell in cells:
        assert cell_report(cell, tmp_path / "cluster" / "grid") == cell_report(cell, tmp_path / "local")


def test_no_cluster_is_a_sentence(tmp_path: Path, ray_turn: None) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(SCENARIO)
    told = sentence(run("bench", "run", grid, "--virtual", "--ray", "auto", "--out", tmp_path))
    assert "no Ray cluster at 'auto'" in told
