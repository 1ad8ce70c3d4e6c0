"""docs/PROBLEMS.md: its file is learned by its scenario, and what it says of wrong ones is said."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from featherfed.errors import FeatherfedError
from featherfed.fl_bench.cells import report_of, run_virtual
from featherfed.fl_bench.scenario import read_scenario
from featherfed.problem_loading import load_problem

TEXT = (Path(__file__).parents[2] / "docs" / "PROBLEMS.md").read_text(encoding="utf-8")
TASK = TEXT.split("```python\n")[1].split("```")[0]
SCENARIO = TEXT.split("```toml\n")[1].split("```")[0]
WRONG = re.findall(r"^\| `(.+?)` → `(.+?)` \| (.+) \|$", TEXT, re.MULTILINE)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    load_problem.cache_clear()
    for name in [name for name, module in sys.modules.items() if "mytask" in name]:
        del sys.modules[name]


def play(folder: Path, task: str, scenario: str = SCENARIO) -> list[dict[str, object]]:
    (folder / "mytask.py").write_text(task)
    (folder / "mine.toml").write_text(scenario)
    cells = read_scenario(folder / "mine.toml", way="virtual")
    for cell in cells:
        run_virtual(cell, folder / "out", None)
    return [report_of(folder / "out" / cell.name) for cell in cells]


def test_worked_example_finds_what_is_malignant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reports = play(tmp_path, TASK)
    assert len(reports) == 2
    for report in reports:
        last = report["rounds"][-1]["metrics"]
        assert set(last) == {"sensitivity", "false alarms"}
        assert last["sensitivity"] > 0.85 and last["false alarms"] < 0.1
    assert reports[0]["rounds"] != reports[1]["rounds"], "the setting changes the training"


def test_without_a_test_set_nothing_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (report, _) = play(tmp_path, TASK.replace("test=test", "test=None"), SCENARIO.replace("rounds = 10", "rounds = 2"))
    assert [row["accepted"] for row in report["rounds"]] == [10, 10]
    assert not any(row.get("metrics") for row in report["rounds"])


def test_there_are_wrong_ones() -> None:
    assert len(WRONG) >= 6


@pytest.mark.parametrize(("right", "wrong", "sentence"), WRONG)
def test_what_is_refused_is_said_as_the_page_says(
    right: str, wrong: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert right in TASK
    scenario = SCENARIO.replace("[0.0, 0.1]", "0.1").replace("rounds = 10", "rounds = 1")
    with pytest.raises(FeatherfedError, match=re.escape(sentence)):
        play(tmp_path, TASK.replace(right, wrong, 1), scenario)
