"""The cells of a grid under way: a live table on a terminal, plain lines elsewhere.

What a cell has reached is read from its run folder, and what its server says from its log, so it shows whoever runs it:
this process, a worker or a server.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from featherfed.fl_bench.cells import finished, logs_of
from featherfed.fl_bench.processes import SERVER_LOG
from featherfed.fl_bench.scenario import Cell
from featherfed.fl_bench.terminal import duration
from featherfed.server.measures import figures, from_text
from featherfed.server.storage.spent import Spent

POLL_S = 1.0
WIDE_COLUMNS = 110
"""A terminal that has fewer is shown the bytes both ways alone."""
SPENT = """SELECT total(socket * (direction = 'uplink')), total(socket * (direction = 'downlink')), total(handshake)
 FROM traffic"""


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a cell stands: the newest `evaluation` by the first measure, empty where there is none.

    With differential privacy the account's ε stands behind it. `spent` is what all phones' sockets carried;
    `emulated_s` is the run's own clock.
    """

    rounds: int
    evaluation: str
    spent: Spent
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
                "SELECT loss, metrics, started_s + seconds FROM rounds WHERE state = 'closed' ORDER BY round"
            ).fetchall()
            kept = connection.execute("SELECT value FROM run WHERE key = 'measures'").fetchone()
            spent = connection.execute(SPENT).fetchone()
            account = connection.execute("SELECT epsilon FROM privacy ORDER BY round DESC LIMIT 1").fetchone()
    except sqlite3.Error:
        # It is being made, or swept away, at this moment.
        return None
    measure = next(iter(from_text(kept[0])), None) if kept else None
    evaluation = ""
    if measure is not None:
        values = [figures(loss, json.loads(metrics or "{}")).get(measure.name) for loss, metrics, _ in rows]
        measured = [value for value in values if value is not None]
        evaluation = f"{measure.name} {measure.text(measured[-1])}" if measured else ""
    if account is not None:
        evaluation = f"{evaluation}  ε {account[0]:.3g}".lstrip()
    return Reached(len(rows), evaluation, Spent(*map(int, spent)), rows[-1][2] if rows else 0.0)


class _ServerLines:
    """What the server of a cell with real processes tells people: the messages of its log, and its standard error."""

    def __init__(self, cell: Cell, out: Path) -> None:
        self._path = logs_of(cell, out) / SERVER_LOG
        self._read = 0
        self.last = ""

    def fresh(self) -> list[str]:
        """Return the lines since the last call."""
        try:
            with open(self._path, "rb") as log:
                log.seek(self._read)
                content = log.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        lines: list[str] = []
        for line in whole.decode(errors="replace").split("\n")[:-1]:
            if line.startswith("{"):
                lines += filter(None, json.loads(line).get("message", "").split("\n"))
            else:
                lines.append(line)
        self.last = lines[-1] if lines else self.last
        return lines


class Progress:
    """Shows a grid while it runs."""

    def __init__(self, cells: Sequence[Cell], out: Path, console: Console) -> None:
        self._cells, self._out, self._console = cells, out, console
        self._began_s = time.monotonic()
        self._cell_began_s: dict[str, float] = {}
        self._shown: dict[str, int] = {}
        self._done: dict[str, Reached] = {}
        self._servers = {cell.name: _ServerLines(cell, out) for cell in cells if cell.way != "virtual"}
        self._before = sum(finished(cell, out) for cell in cells)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._live = Live(get_renderable=self.view, console=console, refresh_per_second=1, transient=True)

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

    def view(self) -> Group:
        """Return a line on the grid, the cells under way, and below them those that are done, the last one first.

        Where a terminal is too low for all of it, the oldest results are cut off.
        """
        standing = [(cell, self._look(cell)) for cell in self._cells]
        under_way = [(cell, where) for cell, where in standing if where is not None and cell.name not in self._done]
        table = Table(box=box.SIMPLE_HEAD)
        # The cell's name and what its server says need room too.
        ways = [name for name in Spent().sizes() if name == "both" or self._console.width >= WIDE_COLUMNS]
        for name in ("cell", "round", "evaluation", *ways, "emulated", "time left"):
            table.add_column(name, justify="left" if name == "cell" else "right", no_wrap=name != "cell")
        by_name = {cell.name: cell for cell in self._cells}
        done = [(by_name[name], where) for name, where in reversed(self._done.items())]
        for cell, where in [*under_way, *done]:
            over = cell.name in self._done
            rounds = f"{where.rounds}/{cell.config.rounds}"
            left = "done" if over else self._left(cell, where)
            figures = [escape(where.evaluation) or "–", *map(where.spent.sizes().get, ways), duration(where.emulated_s)]
            table.add_row(self._name(cell, where, over=over), rounds, *figures, left, style="dim" if over else "")
        return Group(self._title(under_way), table)

    def _title(self, under_way: Sequence[tuple[Cell, Reached]]) -> str:
        cells, done = len(self._cells), len(self._done)
        title = f"{done} of {cells} cells done, {len(under_way)} under way"
        share = done + sum(where.rounds / cell.config.rounds for cell, where in under_way)
        gained = share - self._before
        if gained <= 0 or share >= cells:
            return f"{title}; in {self._out}"
        spent_s = time.monotonic() - self._began_s
        return f"{title}, about {duration(spent_s / gained * (cells - share))} left; in {self._out}"

    def _name(self, cell: Cell, where: Reached, *, over: bool) -> Text:
        text = Text(", ".join(f"{key}={value}" for key, value in cell.keys.items()) or cell.name)
        server = self._servers.get(cell.name)
        if server is not None and where.rounds == 0 and not over:
            server.fresh()
            text.append(f"\n{server.last}" if server.last else "\nthe server starts", style="dim")
        return text

    def _look(self, cell: Cell) -> Reached | None:
        if cell.name in self._done:
            return self._done[cell.name]
        done = finished(cell, self._out)
        where = reached(self._out / cell.name)
        if where is not None:
            self._cell_began_s.setdefault(cell.name, time.monotonic())
            if done:
                self._done[cell.name] = where
        return where

    def _left(self, cell: Cell, where: Reached) -> str:
        if where.rounds == 0:
            return "…"
        spent_s = time.monotonic() - self._cell_began_s[cell.name]
        # At most: it ends early where it has a target that it reaches.
        return f"≤ {duration(spent_s / where.rounds * (cell.config.rounds - where.rounds))}"

    def _poll(self) -> None:
        while not self._over.wait(POLL_S):
            self._say_news()

    def _say_news(self) -> None:
        for cell in self._cells:
            if cell.name in self._done:
                continue
            where = self._look(cell)
            server = self._servers.get(cell.name)
            for line in server.fresh() if server else ():
                self._say(cell, line)
            if server is not None and server.last:
                # It tells of its rounds itself; a cluster's node keeps it silent.
                continue
            if where is not None and self._shown.get(cell.name, 0) != where.rounds:
                self._shown[cell.name] = where.rounds
                evaluation = f"  {where.evaluation}" if where.evaluation else ""
                rounds = f"round {where.rounds}/{cell.config.rounds}"
                carried = "  ".join(f"{name} {text}" for name, text in where.spent.sizes().items())
                self._say(cell, f"{rounds}{evaluation}  {carried}  emulated {duration(where.emulated_s)}")

    def _say(self, cell: Cell, line: str) -> None:
        self._console.print(f"{cell.name}  {line}", markup=False, highlight=False, soft_wrap=True)
