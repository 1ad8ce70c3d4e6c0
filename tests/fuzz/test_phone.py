"""Whatever a server says and whenever its connections break, the newest task's update comes."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.bandwidth_sim.virtual import run

from .budget import count, inputs
from .scripted_run import ScriptedRun, job_seconds

Moves = Sequence[tuple[int | str, int]]
LOST = [(name, 8) for name in ("back", "welcome", "ask", "rest", "cut")]
"""A connection that breaks in mid-training; `8` is a third of a second for what follows of each move."""


def play(kind: str, disk: bool, moves: Moves, seed: int = 0) -> None:
    """Play one script in virtual time."""

    async def main(folder: Path | None) -> None:
        await ScriptedRun(kind, folder, seed).play(moves)

    with tempfile.TemporaryDirectory() as folder:
        run(main(Path(folder) if disk else None), job_s=job_seconds, limit_s=3000.0)


@pytest.mark.parametrize("kind", ["plain", "circles", "masked"])
@inputs(0.06)
@given(
    disk=st.booleans(),
    moves=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 9)), max_size=20),
    seed=st.integers(0, 3),
)
def test_the_newest_task_s_update_comes_whatever_was_before(kind: str, disk: bool, moves: Moves, seed: int) -> None:
    count("lives of a phone")
    fsync, os.fsync = os.fsync, lambda _: None
    try:
        play(kind, disk, moves, seed)
    finally:
        os.fsync = fsync


@pytest.mark.parametrize("kind", ["plain", "circles", "masked"])
@pytest.mark.parametrize("late", [[], ["next late"]])
def test_training_that_outlived_its_connection_stands_in_no_task_s_way(kind: str, late: list[str]) -> None:
    """Lives that once stood still, of which random ones are too few."""
    play(kind, False, [*LOST, *((name, 8) for name in (*late, "back", "welcome", "train"))])
