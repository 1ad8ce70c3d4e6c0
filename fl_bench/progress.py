"""The cells of a grid under way: a live table on a terminal, plain lines elsewhere.

What a cell has reached is read from its run folder, so it shows whoever runs it: this process, a worker or a server.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fl_bench.running import finished
from fl_bench.scenario import Cell
from server.report import size

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a cell stands. `uplink_bytes` are the socket's, of all phones; `emulated_s` is the run's own clock."""

    rounds: int
    accuracy: float | None
    uplink_bytes: int
    emulated_s: float


def reached(folder: Path) -> Reached | None:
    """Return where the run in a folder stands, None where nothing is written yet."""
    path = folder / "run.sqlite"
    if not path.exists():
        return None
    try:
        # Read-only: whoever runs the cell makes its tables, and must not find them made.
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT accuracy, started_s + seconds FROM rounds WHERE state = 'closed' ORDER BY round"
            ).fetchall()
            ((up,),) = connection.execute("SELECT total(socket) FROM traffic WHERE direction = 'uplink'")
    except sqlite3.Error:
        # It is being made, or swept away, at this moment.
        return None
    accuracies = [accuracy for accuracy, _ in rows if accuracy is not None]
    return Reached(len(rows), accuracies[-1] if accuracies else None, int(up), rows[-1][1] if rows else 0.0)


class Progress:
    """Shows a grid while it runs."""

    def __init__(self, cells: Sequence[Cell], out: Path, console: Console) -> None:
        self._cells, self._out, self._console = cells, out, console
        self._began: dict[str, float] = {}
        self._shown: dict[str, int] = {}
        self._kept: dict[str, Reached] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=1, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.__enter__()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._console.is_terminal:
            self._live.__exit__(kind, error, trace)
        else:
            self._thread.join()
            self._say_news()

    def table(self) -> Table:
        """Return the table of all cells that are under way or finished."""
        table = Table(title=f"{self._out}: {len(self._cells)} cells", title_justify="left")
        for name in ("cell", "round", "accuracy", "up", "emulated", "time left"):
            table.add_column(name, justify="left" if name == "cell" else "right")
        waiting = 0
        for cell in self._cells:
            where = self._look(cell)
            if where is None:
                waiting += 1
                continue
            accuracy = "–" if where.accuracy is None else f"{where.accuracy:.2%}"
            rounds = f"{where.rounds}/{cell.config.rounds}"
            left = "done" if finished(cell, self._out) else self._left(cell, where)
            table.add_row(cell.name, rounds, accuracy, size(where.uplink_bytes), f"{where.emulated_s:,.0f} s", left)
        if waiting:
            table.caption = f"{waiting} more wait"
        return table

    def _look(self, cell: Cell) -> Reached | None:
        if cell.name in self._kept:
            return self._kept[cell.name]
        done = finished(cell, self._out)
        where = reached(self._out / cell.name)
        if where is not None:
            self._began.setdefault(cell.name, time.monotonic())
            if done:
                self._kept[cell.name] = where
        return where

    def _left(self, cell: Cell, where: Reached) -> str:
        if where.rounds == 0:
            return "…"
        spent_s = time.monotonic() - self._began[cell.name]
        return f"≤ {spent_s / where.rounds * (cell.config.rounds - where.rounds):,.0f} s"

    def _poll(self) -> None:
        while not self._over.wait(POLL_S):
            self._say_news()

    def _say_news(self) -> None:
        for cell in self._cells:
            if cell.name in self._kept:
                continue
            where = self._look(cell)
            if where is None or self._shown.get(cell.name, 0) == where.rounds:
                continue
            self._shown[cell.name] = where.rounds
            accuracy = "" if where.accuracy is None else f"  accuracy {where.accuracy:.2%}"
            self._console.print(
                f"{cell.name}  round {where.rounds}/{cell.config.rounds}{accuracy}  up {size(where.uplink_bytes)}"
                f"  emulated {where.emulated_s:,.0f} s",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
