"""Tables in documents that a command writes between two marks, so that no figure is typed by hand."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from featherfed.errors import LocalError


def kept_or_measured(kept: Iterable[Path], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of JSON files, the later ones over the earlier; without any, those that `measure` finds."""
    if not (files := list(kept)):
        return measure()
    return {name: each for file in files for name, each in json.loads(file.read_text()).items()}


def fill(path: Path, tables: dict[str, str]) -> None:
    """Put each table between the lines `<!-- its name: begin -->` and `<!-- its name: end -->` of a document.

    Raises `LocalError` where the document lacks them, and leaves it as it was.
    """
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise LocalError(f"{path} has no lines {begin!r} and {end!r} to write between")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    path.write_text(text, encoding="utf-8")
