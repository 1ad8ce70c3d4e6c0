"""A grid on a real local Ray cluster of two workers, one of which is killed in the middle of its cell."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from featherfed.errors import ConfigError
from featherfed.fl_bench.cells import cell_report
from featherfed.fl_bench.cluster import run_on_cluster
from featherfed.fl_bench.grid import run_grid
from featherfed.fl_bench.scenario import read_scenario

ray = pytest.importorskip("ray", reason="needs ray: pip install 'featherfed[ray]'")
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


def busy_workers() -> list[psutil.Process]:
    """The worker processes of our own cluster that have a cell in hand."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "packed_cell" in process.name() or "packed_cell" in "".join(titles(process))]


def titles(process: psutil.Process) -> list[str]:
    try:
        line: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return line


def test_cells_survive_the_death_of_a_worker_and_give_what_they_give_locally(tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "grid.toml").write_text(SCENARIO)
    cells = read_scenario(tmp_path / "grid.toml", way="virtual")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run_on_cluster(cells, tmp_path / "cluster", None, address=cluster.address)
        except BaseException as error:
            failures.append(error)

    (tmp_path / "cluster").mkdir()
    running = threading.Thread(target=work)
    running.start()
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (workers := busy_workers()) and running.is_alive():
        assert time.monotonic() < deadline_s, "no worker began"
        time.sleep(0.05)
    assert workers, failures
    os.kill(workers[0].pid, signal.SIGKILL)
    running.join(TIMEOUT_S)
    assert not running.is_alive()
    assert not failures
    run_grid(cells, tmp_path / "local", None)
    for cell in cells:
        assert cell_report(cell, tmp_path / "cluster") == cell_report(cell, tmp_path / "local")


def test_no_cluster_is_a_sentence(tmp_path: Path, ray_turn: None) -> None:
    (tmp_path / "grid.toml").write_text(SCENARIO)
    cells = read_scenario(tmp_path / "grid.toml", way="virtual")
    with pytest.raises(ConfigError, match="no Ray cluster at 'auto'"):
        run_on_cluster(cells, tmp_path, None, address="auto")
