"""Run a scenario's cells with real processes, one after the other; finished cells are never run twice."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherfed.errors import LocalError
from fl_bench.processes import Processes
from fl_bench.scenario import Cell
from server.report import make_report
from server.run_folder import existing
from server.store import Store

DONE = "done"


def run_cell(cell: Cell, out: Path, data_dir: str | None, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run one cell in `out/<its name>`, return `fl-server report --json` with its `cell` keys in front."""
    folder = out / cell.name
    if not (folder / DONE).exists():
        if folder.exists():
            # What an interrupted grid left of a cell is not its result.
            shutil.rmtree(folder)
        _run(cell, out, data_dir, tell)
        (folder / DONE).touch()
    return {"cell": cell.keys, **report_of(folder)}


def report_of(folder: Path) -> dict[str, Any]:
    """Return the report of a run's folder."""
    run, config = existing(folder)
    store = Store(run.database)
    try:
        return make_report(run, config, store).content
    finally:
        store.close()


def _run(cell: Cell, out: Path, data_dir: str | None, tell: Callable[[str], None]) -> None:
    data = ["--data-dir", data_dir] if data_dir else []
    with Processes(out / f"{cell.name}.logs") as processes:
        # Nobody looks at the page of a cell, and what is measured should not pay for it.
        flags = ["--runs", str(out), "--name", cell.name, "--no-dashboard", *data, *cell.server_flags()]
        address = processes.start_server(flags, tell)
        count = cell.config.phones
        if cell.phones.get("as") == "swarm":
            links = ",".join(cell.link_of(shard) for shard in range(count)) if "link" in cell.phones else ""
            flags = ["--links", links] if links else []
            for key in ("bandwidth", "device"):
                flags += [f"--{key}", str(cell.phones[key])] if key in cell.phones else []
            processes.start_phone("swarm", ["--server", address, "--count", str(count), *data, *flags], "swarm")
        else:
            for shard in range(count):
                flags = ["--name", f"phone-{shard}", "--shard", f"{shard}/{count}", *cell.phone_flags(shard)]
                processes.start_phone(f"phone-{shard}", ["--server", address, *data, *flags])
        status = processes.wait_for_server()
    if status != 0:
        raise LocalError(f"the run {cell.name} ended with status {status}; see {out / (cell.name + '.logs')}")
