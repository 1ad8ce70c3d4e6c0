"""docs/API.md: what it shows of a notebook runs as it stands, and the site begins with what most people look for."""

import re
from pathlib import Path

import matplotlib
import pytest

from lab.docs_site import public_names

TEXT = (Path(__file__).parents[2] / "docs" / "API.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_what_a_notebook_would_do_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict[str, object] = {}
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(block, names)
    assert names["again"] == names["small"]
    costs = names["cost"]
    assert isinstance(costs, list) and costs[0] < costs[1], "what the page compares differs"
    assert (tmp_path / "bytes.png").read_bytes().startswith(b"\x89PNG")


def test_experiments_and_reports_come_first() -> None:
    headings = re.findall(r"^## (.+)$", public_names(), re.MULTILINE)
    assert headings[:2] == ["Experiments", "Problems"]
