"""Run one cell of a scenario, with real processes or in virtual time; a finished cell is never run twice."""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import featherfed
from featherfed.errors import ConfigError, LocalError
from featherfed.fl_bench.differences import differences
from featherfed.fl_bench.own_links import text_of
from featherfed.fl_bench.processes import Processes
from featherfed.fl_bench.scenario import Cell
from featherfed.lost_phones import lost_phones
from featherfed.server.config import RunConfig
from featherfed.server.storage.report import Report, make_report
from featherfed.server.storage.run_folder import create, existing, write_durably
from featherfed.server.storage.store import Store
from featherfed.server.watchers.watcher import Watcher

if TYPE_CHECKING:
    from featherfed.side_by_side import Workers

DONE = "done"
FACTS = "cell.json"
LINKS = "links.toml"
"""The links of one's own that a cell's phones are on, for `--profiles`, beside what the processes print."""


def finished(cell: Cell, out: Path) -> bool:
    """Return whether a cell's result is there."""
    return (out / cell.name / DONE).exists()


def logs_of(cell: Cell, out: Path) -> Path:
    """Return the folder for what a cell's processes print."""
    return out / f"{cell.name}.logs"


def left_to_run(cells: Sequence[Cell], out: Path) -> list[Cell]:
    """Return the cells that are not finished, and sweep away what an interrupted grid left of them: it is no result."""
    left = [cell for cell in cells if not finished(cell, out)]
    for cell in left:
        for folder in (out / cell.name, logs_of(cell, out)):
            if folder.exists():
                shutil.rmtree(folder)
    return left


def refuse_changed(cells: Sequence[Cell], out: Path) -> None:
    """Raise `ConfigError` where a finished cell was run with other settings than it would be run with now.

    Its folder has the name of what varies: whatever else a scenario says may have changed since, and so may the model
    that a problem has, by an edit of its file or in another release.
    """
    sizes: dict[str, int] = {}
    for cell in cells:
        folder = out / cell.name
        if not (finished(cell, out) and (folder / FACTS).exists()):
            continue
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        config, was = _as_run(folder)
        told = {"as": facts.get("way", cell.way), **facts.get("phones", {})}
        found = differences(config, told, cell.config, {**cell.phones, "as": cell.way})
        if not found:
            if cell.config.problem not in sizes:
                sizes[cell.config.problem] = _parameters(cell.config.problem)
            is_now = sizes[cell.config.problem]
            found = {} if was == is_now else {"parameters": (f"{was:,}", f"{is_now:,}")}
        if found:
            said = ", ".join(f"{name} = {before} where the scenario has {now}" for name, (before, now) in found.items())
            raise ConfigError(
                f"{folder} is finished, with {said}: choose another --out, or remove that folder to have it run again"
            )


def _as_run(folder: Path) -> tuple[RunConfig, int]:
    """Return the configuration of a run, and how many parameters its model has."""
    run, config = existing(folder)
    store = Store(run.database)
    try:
        return config, int(store.values().get("parameters", 0))
    finally:
        store.close()


def _parameters(problem: str) -> int:
    """Return how many parameters a problem's model has now."""
    from featherfed.learning.described import described

    return int(described(problem)["parameters"])


def run_cell(cell: Cell, out: Path, data_dir: str | None, workers: "int | Workers | None" = None) -> None:
    """Run one cell in `out/<its name>` unless it is finished; `workers` train side by side in virtual time."""
    from featherfed.learning.fast import passes

    folder = out / cell.name
    if not left_to_run([cell], out):
        return
    began_s = time.monotonic()
    lost: dict[str, str] = {}
    if cell.way == "virtual":
        run_virtual(cell, out, data_dir, workers=workers)
    elif lost := _run_processes(cell, out, data_dir):
        # In virtual time the simulation says so.
        print(f"{folder}: {lost_phones(cell.config.phones, lost)}", file=sys.stderr, flush=True)
    facts = {
        "cell": cell.keys,
        "phones": cell.phones,
        "way": cell.way,
        "featherfed": featherfed.__version__,
        "passes": passes(),
        "wall_s": round(time.monotonic() - began_s, 3),
        "cores": os.cpu_count(),
        **({"lost": lost} if lost else {}),
    }
    write_durably(folder / FACTS, json.dumps(facts, indent=1).encode())
    (folder / DONE).touch()


def cell_report(cell: Cell, out: Path) -> dict[str, Any]:
    """Return a finished cell's `fl-server report --json`, with its `cell` keys in front."""
    return {"cell": cell.keys, **report_of(out / cell.name)}


def report_of(folder: Path) -> dict[str, Any]:
    """Return the content of the report of a run's folder."""
    return stored_report(folder).content


def stored_report(folder: Path) -> Report:
    """Return the report of a run's folder."""
    run, config = existing(folder)
    store = Store(run.database)
    try:
        return make_report(run, config, store)
    finally:
        store.close()


def run_virtual(
    cell: Cell,
    out: Path,
    data_dir: str | None,
    watcher: Watcher | None = None,
    *,
    workers: "int | Workers | None" = None,
) -> None:
    """Run a cell in virtual time, told to a watcher; raises `LocalError` where it does not come to its end."""
    from featherfed.simulation import simulate

    simulate(
        cell.config, lambda: create(out, cell.name, cell.config), cell.fleet(), data_dir=data_dir, watcher=watcher,
        workers=workers,
    )  # fmt: skip


def _run_processes(cell: Cell, out: Path, data_dir: str | None) -> dict[str, str]:
    """Run a cell with real processes; return by name what each phone has said that failed before its end."""
    data = ["--data-dir", data_dir] if data_dir else []
    logs = logs_of(cell, out)
    with Processes(logs) as processes:
        # Nobody looks at the page of a cell, and what is measured should not pay for it.
        flags = ["--runs", str(out), "--name", cell.name, "--no-dashboard", *data, *cell.server_flags()]
        # What it prints is in its log, where progress.py reads it in whatever process this is.
        address = processes.start_server(flags, lambda event: None)
        count = cell.config.phones
        told = ["--server", address, *data]
        if cell.own_links:
            (logs / LINKS).write_text(text_of(cell.own_links), encoding="utf-8")
            told += ["--profiles", str(logs / LINKS)]
        if cell.way == "swarm":
            processes.start_phone("swarm", [*told, *cell.swarm_flags()], "swarm")
        else:
            for shard in range(count):
                flags = ["--name", f"phone-{shard}", "--shard", f"{shard}/{count}", *cell.phone_flags(shard)]
                processes.start_phone(f"phone-{shard}", [*told, *flags])
        status = processes.wait_for_server()
        lost = processes.lost_phones()
    if status != 0:
        raise LocalError(f"the run {cell.name} ended with status {status}; see {logs}")
    return lost
