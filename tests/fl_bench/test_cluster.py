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
TIMEOUT_S = 280.0
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


def works_on(process: psutil.Process, task: str) -> bool:
    """Return whether a process is a worker that has such a task in hand: Ray gives it the task's name."""
    try:
        return task in process.name() or task in "".join(process.cmdline())
    except psutil.Error:
        return False


def busy_workers(task: str = "packed_cell") -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if works_on(process, task)]


def killed_once_busy(driver: "subprocess.Popen[str]", task: str) -> tuple[str, bool]:
    """Kill the first worker that has a task in hand; return what the driver says until its end, and whether one had."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (workers := busy_workers(task)) and driver.poll() is None:
        assert time.monotonic() < deadline_s, "no worker began"
        time.sleep(0.02)
    if workers:
        workers[0].kill()
    told, _ = driver.communicate(timeout=TIMEOUT_S)
    return told, bool(workers)


def run_with_a_worker_killed(given: list[str], task: str) -> None:
    """Run `fl-bench` to its end, and kill a worker of the cluster that has a task in hand."""
    with subprocess.Popen(
        command("bench", *given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        try:
            told, killed = killed_once_busy(driver, task)
        finally:
            driver.kill()
    assert killed, told
    assert driver.returncode == 0, told


def test_cells_survive_the_death_of_a_worker_and_give_what_they_give_locally(tmp_path: Path, cluster: Any) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(SCENARIO)
    given = ["run", str(grid), "--virtual", "--ray", cluster.address, "--out", str(tmp_path / "cluster")]
    run_with_a_worker_killed(given, "packed_cell")
    cells = read_scenario(grid, way="virtual")
    run_grid(cells, tmp_path / "local", None)
    for cell in cells:
        assert cell_report(cell, tmp_path / "cluster" / "grid") == cell_report(cell, tmp_path / "local")


ONE = """
problem = "digits/lite"
phones = 6
cohort = 6
rounds = 8
epochs = 2
lr = 0.05
link = "3g"
uplink = "float32"
"""


def test_phones_of_one_run_are_trained_by_the_cluster_and_the_run_is_the_same(tmp_path: Path, cluster: Any) -> None:
    scenario = tmp_path / "one.toml"
    scenario.write_text(ONE)
    given = ["run", str(scenario), "--virtual", "--ray", cluster.address, "--out", str(tmp_path / "cluster")]
    run_with_a_worker_killed(given, "TrainingActor.train")
    [cell] = read_scenario(scenario, way="virtual")
    run_grid([cell], tmp_path / "local", None, workers=1)
    assert cell_report(cell, tmp_path / "cluster" / "one") == cell_report(cell, tmp_path / "local")
    models = [folder / cell.name / "model.safetensors" for folder in (tmp_path / "cluster" / "one", tmp_path / "local")]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_workers_of_cells_that_are_tasks_are_refused(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(SCENARIO)
    told = sentence(run("bench", "run", grid, "--virtual", "--ray", "auto", "--workers", "2", "--out", tmp_path))
    assert "leave out --workers" in told


def test_no_cluster_is_a_sentence(tmp_path: Path, ray_turn: None) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(SCENARIO)
    told = sentence(run("bench", "run", grid, "--virtual", "--ray", "auto", "--out", tmp_path))
    assert "no Ray cluster at 'auto'" in told
