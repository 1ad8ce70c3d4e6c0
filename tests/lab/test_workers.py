"""A round on one worker and on several, in a small size: other models fail, slow rounds never."""

from pathlib import Path

import pytest

from lab.documents import fill
from lab.workers import caption, measure, table

PAGE = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"


@pytest.mark.processes
def test_two_workers_make_the_same_model_and_the_page_takes_the_table(tmp_path: Path) -> None:
    result = measure(None, ("training", "framework"), 1, small=True)
    [row] = result["training"]
    assert row["same"] and row["model"] == "tiny"
    framework = result["framework"]
    assert all(seconds > 0 for seconds in (*row["medians"].values(), framework["seconds"], framework["cpu"]))
    page = tmp_path / "PERFORMANCE.md"
    page.write_text(PAGE.read_text())
    fill(page, {"workers": table(result), "workers machine": caption(result)})
    assert "`tiny`, float32: 2 workers" in page.read_text()
