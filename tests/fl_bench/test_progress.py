"""What a grid shows while it runs: on a terminal of a given size, and as plain lines."""

import io
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from featherfed.fl_bench.cells import logs_of
from featherfed.fl_bench.grid import run_grid
from featherfed.fl_bench.processes import SERVER_LOG
from featherfed.fl_bench.progress import Progress, reached
from featherfed.fl_bench.scenario import Cell, read_scenario

CARRIED = "  ".join(rf"{name} [\d.]+ k?B" for name in ("up", "down", "both", "handshakes"))
SCENARIO = """
problem = "digits/tiny"
phones = 2
cohort = 2
rounds = 2
train = "none"
uplink = "float32"
"""


def cells_of(tmp_path: Path, text: str, way: str = "virtual") -> list[Cell]:
    file = tmp_path / "grid.toml"
    file.write_text(SCENARIO + text)
    return read_scenario(file, way=way)


def on_terminal(progress: Progress, *, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines that a terminal of this size shows of the table."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(progress.view())
    return capture.get().splitlines()[: height - 1]


def test_cells_under_way_stand_above_the_finished_ones_in_any_terminal(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, f"seed = {list(range(12))}\n")
    run_grid(cells[:9], tmp_path, None)
    progress = Progress(cells, tmp_path, Console(file=io.StringIO(), width=160))
    run_grid(cells[9:11], tmp_path, None)
    for cell in cells[9:11]:
        (tmp_path / cell.name / "done").unlink()
    title, _, header, _, first, second, *done = on_terminal(progress, width=160, height=12)
    assert "9 of 12 cells done, 2 under way, about" in title and " left; in" in title
    assert header.split() == [
        "cell", "round", "evaluation", "up", "down", "both", "handshakes", "emulated", "time", "left",
    ]  # fmt: skip
    assert re.search(r"seed=9 +2/2 .* ≤ 0 s", first)
    assert re.search(r"seed=10 +2/2 ", second)
    # The last one first: what a low terminal cuts off is oldest.
    assert re.search(r"seed=8 +2/2 .* done", done[0])
    assert not any("seed=0" in line for line in done)


def test_a_cell_without_rounds_says_what_its_server_says(tmp_path: Path) -> None:
    [cell] = cells = cells_of(tmp_path, "", way="processes")
    progress = Progress(cells, tmp_path, Console(file=io.StringIO()))
    run_grid(cells_of(tmp_path, ""), tmp_path / "other", None)
    (tmp_path / "other" / cell.name).rename(tmp_path / cell.name)
    (tmp_path / cell.name / "done").unlink()
    with sqlite3.connect(tmp_path / cell.name / "run.sqlite") as connection:
        connection.execute("UPDATE rounds SET state = 'open'")
    assert any("the server starts" in line for line in on_terminal(progress))
    logs_of(cell, tmp_path).mkdir()
    (logs_of(cell, tmp_path) / SERVER_LOG).write_text("phone phone-1 plays shard 1: 1/2 connected\nhalf a li")
    assert any("phone-1 plays shard 1: 1/2 connected" in line for line in on_terminal(progress, width=160))


def test_nothing_is_known_of_a_run_that_is_being_made(tmp_path: Path) -> None:
    assert reached(tmp_path) is None
    (tmp_path / "run.sqlite").touch()
    assert reached(tmp_path) is None


def test_plain_lines_have_each_round_of_virtual_time_once(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, "seed = [3, 4]\n")
    console = Console(file=io.StringIO(), width=200)
    with Progress(cells, tmp_path, console):
        run_grid(cells, tmp_path, None)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == len(set(lines))
    for seed in (3, 4):
        assert re.fullmatch(rf"seed={seed}  round 2/2  accuracy [\d.]+%  {CARRIED}  emulated \d+ s", [
            line for line in lines if line.startswith(f"seed={seed}  ")
        ][-1])  # fmt: skip


@pytest.mark.processes
def test_lines_of_a_cells_server_are_passed_on_up_to_its_report(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, "", way="processes")
    console = Console(file=io.StringIO(), width=200)
    with Progress(cells, tmp_path, console):
        run_grid(cells, tmp_path, None)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert all(line.startswith("run  ") for line in lines)
    assert sum("2/2 connected" in line for line in lines) == 1
    assert [line.split()[2] for line in lines if line.startswith("run  round ")] == ["1/2", "2/2"]
    assert not any("theory" in line or "fl-server report" in line for line in lines)


@pytest.mark.processes
def test_a_terminal_has_its_table_and_then_the_results(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(SCENARIO.replace("rounds = 2", "rounds = 60") + "seed = [0, 1]\n")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "featherfed.fl_bench.cli", "run", str(tmp_path / "grid.toml"), "--virtual"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "20"}
    with subprocess.Popen(
        [*command, "--out", str(tmp_path)], stdout=terminal, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        shown = b""
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                break
            shown += piece
        os.close(controller)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 0, text
    assert "of 2 cells done" in text
    assert "Traceback" not in text
    # What moved is wiped off; the results stay, and the cursor is back.
    assert text.index("of 2 cells done") < text.index("bytes of all phones to a target")
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
