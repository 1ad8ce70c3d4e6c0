"""Figures of benches are measured, or taken from what was measured before."""

import json
from pathlib import Path

from lab.documents import kept_or_measured


def test_figures_of_files_take_the_place_of_measuring_and_later_files_of_earlier_ones(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps({"a": 1, "b": 2}))
    second.write_text(json.dumps({"b": 3}))
    assert kept_or_measured([], lambda: {"a": 0}) == {"a": 0}
    assert kept_or_measured([first, second], dict) == {"a": 1, "b": 3}
