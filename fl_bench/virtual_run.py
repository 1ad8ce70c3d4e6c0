"""One cell of a scenario in virtual time."""

from pathlib import Path

from featherfed.fl_bench.scenario import Cell
from featherfed.server.storage.run_folder import create
from featherfed.server.watchers.watcher import Watcher
from featherfed.simulation import simulate


def run_virtual(cell: Cell, out: Path, data_dir: str | None, watcher: Watcher | None = None) -> None:
    """Run a cell in `out/<its name>`, told to a watcher; raises `LocalError` where it does not come to its end."""
    simulate(
        cell.config,
        lambda: create(out, cell.name, cell.config),
        cell.fleet(),
        data_dir=data_dir,
        watcher=watcher,
    )
