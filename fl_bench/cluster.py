"""A Ray cluster: a grid's cells on it, or the trainings of one run.

Of a grid each cell is a task, whose folder comes back as its result.

Nothing is shared but the code: a task runs in a temporary folder of whatever node it lands on. Ray runs a task again
whose worker or node died; a cell that fails by itself is not run again.
"""

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featherfed.errors import FeatherfedError, LocalError
from featherfed.fl_bench.cells import left_to_run, run_cell
from featherfed.fl_bench.scenario import Cell
from featherfed.gateway.ray_cluster import cluster

RETRIES = 5


def packed_cell(cell: Cell, data_dir: str | None) -> bytes:
    """Run a cell in a temporary folder, on the one core that the task has; return that folder as a tar file."""
    with tempfile.TemporaryDirectory(prefix="featherfed-cell-") as folder:
        run_cell(cell, Path(folder), data_dir, 1)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(Path(folder) / cell.name, cell.name)
        return content.getvalue()


def run_on_cluster(cells: Sequence[Cell], out: Path, data_dir: str | None, *, address: str) -> None:
    """Run all cells that are not finished on the Ray cluster at `address` (`auto`: the one that runs here).

    Raises `ConfigError` where there is no Ray or no cluster, `LocalError` where a cell fails.
    """
    left = left_to_run(cells, out)
    with cluster(address) as ray:
        task: Any = ray.remote(packed_cell).options(num_cpus=1, max_retries=RETRIES)
        cell_of = {task.remote(cell, data_dir): cell for cell in left}
        under_way = list(cell_of)
        while under_way:
            done, under_way = ray.wait(under_way, num_returns=1)
            _unpack(_result(ray, done[0], cell_of[done[0]]), out)


def train_on_cluster(cell: Cell, out: Path, data_dir: str | None, *, address: str, workers: int | None = None) -> None:
    """Run a cell in virtual time here, whose phones the Ray cluster at `address` trains: so many at a time.

    Unless told, as many as the cluster has cores. Raises `ConfigError` where there is no Ray or no cluster.
    """
    from featherfed.edge_client.training_host import HostPlan
    from featherfed.fl_bench.ray_crew import RayCrew
    from featherfed.side_by_side import Workers

    config = cell.config
    with cluster(address) as ray:
        there = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        plan = HostPlan.here(config.problem, plugins=config.plugin, data_dir=data_dir)
        run_cell(
            cell, out, data_dir,
            Workers(min(there, config.largest_cohort), lambda size: RayCrew(ray, size, plan), trains_here=False),
        )  # fmt: skip


def _result(ray: Any, task: Any, cell: Cell) -> bytes:
    try:
        result: bytes = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FeatherfedError):
            raise error.cause from error
        raise LocalError(f"the cell {cell.name} failed on the cluster: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise LocalError(
            f"the cell {cell.name} was lost {RETRIES + 1} times on the cluster: {type(error).__name__}"
        ) from error
    return result


def _unpack(content: bytes, out: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(out, filter="data")
