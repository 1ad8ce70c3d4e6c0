"""docs/RESULTS.md from real runs in virtual time, and the check of what the papers claim."""

import json
import shutil
import sqlite3
from pathlib import Path

from click.testing import CliRunner, Result

from featherfed.fl_bench.cli import main as fl_bench
from featherfed.report import Report
from lab.__main__ import main as lab
from lab.results import COLUMNS, papers_say

SMALL = """
problem = "digits/tiny"
phones = 3
cohort = 3
rounds = 1
train = "none"
uplink = ["float32", "rotate | eden(1)"]
"""


def run(file: Path) -> None:
    done = CliRunner().invoke(fl_bench, ["run", str(file), "--virtual", "--out", str(file.parent)])
    assert done.exit_code == 0, done.output


def results(*arguments: object) -> Result:
    return CliRunner().invoke(lab, ["results", *map(str, arguments)])


def test_results_write_a_page_and_fail_where_nothing_is_checked(tmp_path: Path) -> None:
    file, grid = tmp_path / "small.toml", tmp_path / "small"
    file.write_text(SMALL)
    run(file)
    done = results(grid, "--write", tmp_path / "RESULTS.md", "--check")
    assert done.exit_code == 1
    assert "no two strategies of a claim were run" in done.output
    page = (tmp_path / "RESULTS.md").read_text()
    assert "rotate \\| eden(1)" in page
    [head, float32, eden] = [
        line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith(("| to", "| the end"))
    ]
    assert head == list(name.removesuffix(":") for name in COLUMNS)
    told = dict(zip(head, float32, strict=True))
    spent = Report.read(grid / "uplink=float32").spent
    assert [told[name] for name in ("uplink", "downlink", "both ways", "handshakes")] == [*spent.sizes().values()]
    assert "eden" in " ".join(eden)
    assert (tmp_path / "plots" / "small.png").exists()


PARTITIONS = """
problem = "digits/tiny"
phones = 10
cohort = 5
rounds = 4
epochs = 2
partition = ["iid", "shards:2", "dirichlet:0.3"]
"""


def test_check_fails_where_an_ordering_is_the_other_way_round_and_where_one_was_not_run(tmp_path: Path) -> None:
    file, grid = tmp_path / "paper_partitions.toml", tmp_path / "paper_partitions"
    file.write_text(PARTITIONS)
    run(file)
    right = results(grid, "--check")
    assert right.exit_code == 0, right.output
    assert right.output.count("holds: ") == 3
    # The same runs, but what was learned from two classes a phone is called the result of all ten.
    for cell, reached in (("partition=iid", 0.5), ("partition=shards_2", 0.9), ("partition=dirichlet_0.3", 0.7)):
        with sqlite3.connect(grid / cell / "run.sqlite") as connection:
            connection.execute("UPDATE rounds SET metrics = ?", (json.dumps({"accuracy": reached}),))
    wrong = results(grid, "--check")
    assert wrong.exit_code == 1
    assert wrong.output.count("DOES NOT HOLD") == 3
    assert "orderings that the papers claim do not hold" in wrong.output
    shutil.rmtree(grid / "partition=shards_2")
    lost = results(grid, "--check")
    assert lost.exit_code == 1
    assert "paper_partitions did not run both iid and shards:2: nothing says whether IID is easier" in lost.output


def test_a_folder_without_runs_is_a_usage_error(tmp_path: Path) -> None:
    done = results(tmp_path)
    assert done.exit_code == 2
    assert "holds no finished run" in done.output


def test_kept_sections_stay_and_say_that_they_are_of_an_earlier_release(tmp_path: Path) -> None:
    page, file = tmp_path / "RESULTS.md", tmp_path / "small.toml"
    file.write_text(SMALL)
    run(file)
    other = "## The same on McMahan's cnn\n\n| strategy | best |\n|---|--:|\n| float32 | 97.87% |\n\n"
    head = "| scenario | source | claim | better | worse | holds here |\n|---|---|---|---|---|---|\n"
    kept = "| paper_cnn | featherfed | a claim | `rotate \\| a` 90.00% | `b` 80.00% | yes |\n"
    verdicts = (
        f"## What the papers say\n\nOf 2 orderings, 2 are as claimed.\n\n{head}{kept}| gone | x | y | z | z | yes |\n"
    )
    both = "## 97 % on IID shards\n\n| strategy | up | down | both ways |\n|---|--:|--:|--:|\n| tiny | 1 | 2 | 3 |\n\n"
    page.write_text(f"# Results\n\nOld words.\n\n{both}## small\n\nold figures\n\n{other}{verdicts}")
    for _ in range(2):
        done = results(tmp_path / "small", "--write", page, "--keep")
        assert done.exit_code == 0, done.output
        text = page.read_text()
        assert "Old words" not in text
        assert "old figures" not in text
        assert text.count("## small\n") == 1
        assert both in text
        assert text.count("earlier release") == 1, "of what counts the uplink alone"
        assert text.index("earlier release") > text.index("## The same on McMahan's cnn")
        assert "| float32 | 97.87% |" in text
        assert text.endswith(f"\n\n{head}{kept}")
        assert "Of 1 orderings, 1 are as claimed, 0 make no difference" in text


def test_verdicts_on_a_scenario_that_was_run_again_replace_its_own_alone(tmp_path: Path) -> None:
    page, file = tmp_path / "RESULTS.md", tmp_path / "paper_partitions.toml"
    file.write_text(PARTITIONS)
    run(file)
    other = ["paper_beyond", "featherfed", "a claim", "`a` 90.00%", "`b` 80.00%", "**no**"]
    old = ["paper_partitions", "nobody", "an old claim", "`a` 90.00%", "`b` 80.00%", "yes"]
    page.write_text(f"# Results\n\n{papers_say([old, other])}")
    done = results(tmp_path / "paper_partitions", "--write", page, "--keep")
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "Of 4 orderings, 3 are as claimed, 0 make no difference here that could be told, and 1 are the other" in text
    assert "an old claim" not in text
    assert text.endswith("| paper_beyond | featherfed | a claim | `a` 90.00% | `b` 80.00% | **no** |\n")
