"""Whatever a server says and whenever its connections break, the newest task's update comes."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.bandwidth_sim.virtual import run

from .budget import count, inputs
from .scripted_run import ScriptedRun, job_seconds

Moves = list[tuple[int, int]]


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
