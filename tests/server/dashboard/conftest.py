"""A stage on which a test plays a run for the real page, and the programs that look at it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ...programs import program
from .stage import Play, Stage

APT = "apt-get install chromium prometheus"


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool", APT)


@pytest.fixture(scope="session")
def prometheus() -> str:
    return program("prometheus", APT)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(token: str | None = None, **settings: Any) -> Stage:
        stages.append(Stage(Play(tmp_path, **settings), token))
        return stages[-1]

    yield make
    for each in stages:
        each.close()
