"""Reports, comparisons and findings from real runs in virtual time."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from featherfed.fl_bench.cli import main
from featherfed.fl_bench.plots import SHARES, bytes_bars, measure_by_bytes, share
from featherfed.fl_bench.results import Run, Spread, Strategy, baseline_of, by_bytes, ratio, read_runs
from featherfed.server.config import config_from
from featherfed.server.measures import Target
from featherfed.server.storage.spent import size

SCENARIO = """
problem = "digits/tiny"
phones = 3
cohort = 3
rounds = 2
epochs = 2
lr = 0.1
link = "3g"
uplink = ["float32", "rotate | eden(1)"]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "small.toml").write_text(SCENARIO)
    done = CliRunner().invoke(main, ["run", str(folder / "small.toml"), "--virtual", "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    cells = json.loads(done.stdout)
    assert [cell["cell"] for cell in cells] == [
        {"uplink": uplink, "seed": seed} for uplink in ("float32", "rotate | eden(1)") for seed in (0, 1)
    ]
    assert list(cells[0]) == [
        "cell", "run", "problem", "parameters", "uplink", "downlink", "measures", "rounds", "totals", "to_target",
    ]  # fmt: skip
    return folder / "small"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_strategies_are_cells_without_their_seed_in_the_order_of_the_scenario(grid: Path) -> None:
    strategies = read_runs([grid])
    assert [strategy.name for strategy in strategies] == ["float32", "rotate | eden(1)"]
    assert [[run.config.seed for run in strategy.runs] for strategy in strategies] == [[0, 1], [0, 1]]
    assert all(run.virtual for strategy in strategies for run in strategy.runs)


def test_strategy_that_changes_by_round_is_compared_with_one_that_changes_alike(tmp_path: Path) -> None:
    uplinks = ["float32", "float32,eden-1bit"]
    configs = [
        config_from({"phones": 20, "cohort": cohort, "uplink": uplink}) for cohort in (12, "12,6") for uplink in uplinks
    ]
    runs = [Run(tmp_path / str(number), config, {}, {}) for number, config in enumerate(configs)]
    strategies = [Strategy("", (run,)) for run in runs]
    # What a strategy is compared with differs in its uplink alone, and sends float32 in all rounds.
    assert [baseline_of(each, strategies) for each in strategies] == [strategies[number] for number in (0, 0, 2, 2)]


def test_a_target_that_a_seed_missed_has_no_median() -> None:
    assert Spread.of([3.0, None, 1.0]) == Spread(None, None, None, 3)
    assert Spread.of([3.0, 2.0, 1.0]) == Spread(2.0, 1.0, 3.0, 3, mean=2.0)


def test_report_is_one_page_that_needs_nothing_with_plots_and_data_beside_it(grid: Path, tmp_path: Path) -> None:
    done = call("report", grid, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report.html").read_text()
    body = re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>', "", page, flags=re.S)
    assert not re.search(r'(src|href)="(?!#)', body)
    assert page.count("<svg") == 3
    for words in (
        "bytes both ways, all phones",
        "bytes up, all phones",
        "bytes down, all phones",
        "emulated minutes",
        "sent again",
    ):
        # Letters are drawn as paths; what they spell stands in a comment beside them.
        assert f"<!-- {words}" in page
    assert "fl-bench run" in page and "--virtual</pre>" in page
    assert "dropout" not in page and "link = &#34;3g&#34;" in page
    assert "fl-server serve" in page and "--problem digits/tiny" in page
    for name in ("metric-bytes", "metric-time", "bytes"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "rounds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    sent = {(row["strategy"], row["seed"], row["round"]): int(row["uplink_payload"]) for row in rows}
    assert sent["float32", "0", "1"] == 3 * 4 * 7946
    assert sent["rotate | eden(1)", "1", "2"] < sent["float32", "1", "2"] / 20


def test_parquet_holds_the_same_rows(grid: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'featherfed[parquet]'")
    assert call("report", grid, "--out", tmp_path).exit_code == 0
    table = parquet.read_table(tmp_path / "rounds.parquet")
    with open(tmp_path / "rounds.csv", newline="") as file:
        assert table.column("uplink_socket").to_pylist() == [int(row["uplink_socket"]) for row in csv.DictReader(file)]


def test_private_runs_and_others_have_rows_of_the_same_columns(grid: Path, tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")
    private = 'uplink = "float32"\nseed = 0\ndp = "central"\nclip_norm = 0.01\nnoise_multiplier = 1.0\n'
    (tmp_path / "private.toml").write_text(SCENARIO[: SCENARIO.index("uplink")] + private)
    done = call("run", tmp_path / "private.toml", "--virtual", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    for first, second in ((grid, tmp_path / "private"), (tmp_path / "private", grid)):
        done = call("report", first, second, "--out", tmp_path / f"of-{first.name}")
        assert done.exit_code == 0, done.output
        with open(tmp_path / f"of-{first.name}" / "rounds.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [bool(row["epsilon"]) for row in rows].count(True) == 2 and len(rows) == 8 + 2


def test_report_as_json_has_each_figure_with_its_spread(grid: Path) -> None:
    first, second = json.loads(call("report", grid, "--json").stdout)
    assert first["strategy"] == "float32"
    best = second["best"]
    assert best["least"] <= best["median"] <= best["most"]
    assert list(first["to_target"]) == [f"accuracy={value}" for value in (0.9, 0.95, 0.97, 0.98, 0.99)]


def test_a_target_costs_what_was_carried_both_ways_and_the_cheapest_stands_first(grid: Path) -> None:
    float32, eden = strategies = read_runs([grid])
    target = Target("accuracy", min(_accuracies(float32) + _accuracies(eden)))
    for strategy in strategies:
        firsts = [run.report["rounds"][0] for run in strategy.runs]
        assert strategy.each(target, "socket") == [
            row["uplink"]["socket"] + row["downlink"]["socket"] for row in firsts
        ]
        assert strategy.each(target, "handshake") == [
            row["uplink"]["handshake"] + row["downlink"]["handshake"] for row in firsts
        ]
    costs = [strategy.to_target(target, "socket").median for strategy in strategies]
    assert costs[0] is not None and costs[1] is not None and costs[0] > costs[1]
    assert by_bytes(strategies, target) == [eden, float32]
    assert ratio(eden, strategies, target) == pytest.approx(costs[0] / costs[1])
    assert by_bytes(strategies, Target("accuracy", 1.0)) == strategies


def _accuracies(strategy: Strategy) -> list[float]:
    return [run.report["rounds"][0]["accuracy"] for run in strategy.runs]


def test_compare_says_what_changed_and_nothing_of_the_same_runs(grid: Path) -> None:
    assert "nothing changed" in call("compare", grid, grid).stdout
    cells = [grid / "uplink=float32-seed=0", grid / "uplink=rotate___eden_1_-seed=0"]
    [best, *_] = json.loads(call("compare", *cells, "--json").stdout)
    assert best["strategy"] == "float32 → rotate | eden(1)"
    assert best["figure"] == "best accuracy"
    assert best["beyond_seeds"] is None
    assert "one seed: unknown" in call("compare", *cells).stdout


def test_a_folder_without_runs_is_a_usage_error(tmp_path: Path) -> None:
    for command in (["report", tmp_path], ["compare", tmp_path, tmp_path]):
        done = call(*command)
        assert done.exit_code == 2
        assert "holds no finished run" in done.output


def test_run_refuses_a_folder_that_exists_and_goes_on_with_resume(grid: Path) -> None:
    again = ["run", grid.parent / "small.toml", "--virtual", "--out", grid.parent]
    refused = call(*again)
    assert refused.exit_code == 2
    assert "go on with --resume" in refused.output
    assert call(*again, "--resume").exit_code == 0
    both = call(*again, "--resume", "--jobs", 2, "--ray", "auto")
    assert both.exit_code == 2
    assert "leave out one" in both.output


def test_a_line_can_be_set_in_place_of_the_scenarios_own(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SCENARIO)
    changed = ["--set", "rounds = 1", "--set", 'uplink = "float32"', "--set", "seed = 5", "--set", 'train = "none"']
    done = call("run", tmp_path / "small.toml", "--virtual", "--out", tmp_path, "--json", *changed)
    assert done.exit_code == 0, done.output
    [cell] = json.loads(done.stdout)
    assert (cell["cell"], cell["uplink"], len(cell["rounds"])) == ({}, "float32", 1)


def test_bars_split_what_the_socket_carried_and_add_up(grid: Path) -> None:
    [float32, *_] = read_runs([grid])
    traffic = {"payload": 1000, "message": 1100, "socket": 1200, "resent": 100, "wasted": 50, "masks": 60, "points": 40}
    assert {name: share(traffic, name) for name in SHARES} == {
        "payload": 810, "framing": 140, "masks": 100, "resent": 100, "wasted": 50,
    }  # fmt: skip
    panel = bytes_bars([float32]).axes[0]
    assert sum(bar.get_width() for bar in panel.patches) == pytest.approx(1)
    rows = [row["uplink"]["socket"] for run in float32.runs for row in run.report["rounds"]]
    assert panel.texts[0].get_text().strip() == size(round(sum(rows) / len(rows)))


def test_a_curve_is_the_mean_over_seeds_with_each_seed_behind_it(grid: Path) -> None:
    [float32, *_] = read_runs([grid])
    *seeds, mean = measure_by_bytes([float32]).axes[0].lines
    assert [len(line.get_xdata()) for line in seeds] == [2, 2]
    expected = np.mean([[line.get_xdata(), line.get_ydata()] for line in seeds], axis=0)
    assert np.allclose([mean.get_xdata(), mean.get_ydata()], expected)
    assert mean.get_label() == "float32"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_readers_colours_and_fits_a_phone(
    grid: Path, tmp_path: Path, browser: Any, scheme: str
) -> None:
    assert call("report", grid, "--out", tmp_path).exit_code == 0
    shown = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    shown.goto((tmp_path / "report.html").as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") == 400
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    # The letters of a plot have the page's ink.
    ink = shown.evaluate("getComputedStyle(document.querySelector('svg #legend_1 g[id^=text]  g')).fill")
    assert (ground, ink) == {
        "light": ("rgb(255, 255, 255)", "rgb(27, 31, 36)"), "dark": ("rgb(20, 24, 28)", "rgb(228, 232, 236)"),
    }[scheme]  # fmt: skip
    shown.close()
