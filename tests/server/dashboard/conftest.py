"""A stage on which a test plays a run for the real page, and the programs that look at it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ...programs import program
from .stage import Play, Stage

APT = "apt-get install chromium prometheus"
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool", APT)


@pytest.fixture(scope="session")
def prometheus() -> str:
    return program("prometheus", APT)


# Not longer than a module: until it ends, Playwright has a loop running in this thread, in which no other can run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium under Playwright."""
    path = program("chromium", APT)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


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
