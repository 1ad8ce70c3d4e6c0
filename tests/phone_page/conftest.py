"""Real servers with the page, and browsers that open it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .browsing import Browsing, Run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start runs with the page; those that are still there end with the test."""
    runs: list[Run] = []

    def begin(*flags: str, **settings: Any) -> Run:
        runs.append(Run(tmp_path, len(runs), flags, **settings))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture
def phone(browser: Any) -> Iterator[Callable[..., Browsing]]:
    """Open addresses, each in a browser of its own that keeps what it keeps."""
    opened: list[Browsing] = []

    def open_page(url: str, **context: Any) -> Browsing:
        opened.append(Browsing(browser, url, **context))
        return opened[-1]

    yield open_page
    for each in opened:
        each.context.close()
    assert not [line for each in opened for line in each.unforeseen()]
