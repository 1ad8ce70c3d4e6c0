"""Problems of a user's own in virtual time: other metrics than accuracy, two of them, none, and no test set."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from featherfed.commands.server import main as server
from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.cli import main
from featherfed.fl_bench.page import run_page
from featherfed.fl_bench.plots import measure_by_bytes
from featherfed.fl_bench.progress import reached
from featherfed.fl_bench.results import read_runs
from featherfed.server.dashboard.stored import StoredRuns, read_snapshot
from featherfed.server.storage.report import make_report
from featherfed.server.storage.run_folder import existing
from featherfed.server.storage.store import Store

TASK = """
import torch
import featherfed as ff

ODD = 'R² <b>&"$x$", [red]'


def model():
    return torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))


def examples(place):
    generator = torch.Generator().manual_seed(place.index)
    inputs = torch.randn(20, 3, generator=generator)
    return ff.Examples(inputs, inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3.0)


def test():
    return examples(ff.Place(index=99))


@ff.metric(higher_is_better=False)
def mae(outputs, targets):
    return (outputs - targets).abs()


@ff.metric(whole=True)
def r2(outputs, targets):
    return 1 - (outputs - targets).pow(2).sum() / (targets - targets.mean()).pow(2).sum()


def size(outputs, targets):
    return outputs.abs()


def nothing(outputs, targets):
    return float("nan")


def problem(**changes):
    return ff.Problem(model, examples=examples, loss=torch.nn.functional.mse_loss, **{"test": test, **changes})


regression = problem(metrics={"mae": mae, ODD: r2})
growing = problem(metrics={"size": size})
shrinking = problem(metrics={"size": ff.metric(size, higher_is_better=False)})
by_loss = problem()
unmeasured = problem(test=None, metrics={"mae": mae})
broken = problem(metrics={"nothing": nothing, "mae": mae})
"""
ODD = 'R² <b>&"$x$", [red]'
SCENARIO = "phones = 3\ncohort = 3\nepochs = 2\nlr = 0.03\nlink = '3g'\n"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run(folder: Path, name: str, text: str = "rounds = 3\nuplink = 'float32'\n") -> Path:
    """Run a problem of the task in virtual time; return its grid's folder."""
    (folder / "task.py").write_text(TASK)
    (folder / f"{name}.toml").write_text(f"problem = '{folder}/task.py:{name}'\n{SCENARIO}{text}")
    done = call("run", folder / f"{name}.toml", "--virtual", "--out", folder)
    assert done.exit_code == 0, done.output
    return folder / name


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "rounds = 12\ntarget = 'mae=0.5'\nuplink = ['float32', 'exact(0) | flat | rotate | quantize(4)']\n"
    return run(tmp_path_factory.mktemp("own"), "regression", text)


def test_run_ends_when_its_target_is_reached_by_the_metrics_direction(regression: Path) -> None:
    content = report_of(regression / "uplink=float32")
    values = [row["metrics"]["mae"] for row in content["rounds"]]
    assert 1 < len(values) < 12
    assert values[-1] <= 0.5 < min(values[:-1])
    there = content["to_target"]["mae=0.5"]
    assert there["round"] == len(values)
    totals = content["totals"]
    assert there["uplink_socket"] == totals["uplink"]["socket"]
    assert there["socket"] == totals["socket"] == totals["uplink"]["socket"] + totals["downlink"]["socket"]
    assert there["handshake"] == totals["handshake"] == sum(totals[way]["handshake"] for way in ("uplink", "downlink"))


def test_report_names_the_metrics_with_their_directions_and_has_no_accuracy(regression: Path) -> None:
    content = report_of(regression / "uplink=float32")
    assert content["measures"] == [
        {"name": "mae", "higher_is_better": False, "fraction": False},
        {"name": ODD, "higher_is_better": True, "fraction": False},
        {"name": "loss", "higher_is_better": False, "fraction": False},
    ]
    row = content["rounds"][0]
    assert list(row["metrics"]) == ["mae", ODD] and row["loss"] > 0 and "accuracy" not in row


def test_server_prints_table_json_and_csv_with_a_column_a_metric(regression: Path) -> None:
    folder = regression / "uplink=float32"
    table = CliRunner().invoke(server, ["report", str(folder)])
    content = json.loads(CliRunner().invoke(server, ["report", str(folder), "--json"]).output)
    rows = list(csv.DictReader(CliRunner().invoke(server, ["report", str(folder), "--csv"]).output.splitlines()))
    assert table.exit_code == 0 and f"{content['rounds'][0]['metrics']['mae']:.4f}" in table.output
    for row, told in zip(rows, content["rounds"], strict=True):
        assert (float(row["mae"]), float(row[ODD])) == (told["metrics"]["mae"], told["metrics"][ODD])


def test_bench_compares_by_the_first_metric_up_to_the_runs_own_target(regression: Path, tmp_path: Path) -> None:
    done = call("report", regression, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "mae 0.5" in done.output
    page = (tmp_path / "report.html").read_text()
    assert "<title>featherfed: bytes and time to mae</title>" in page
    assert '<th class="part" colspan="11">mae 0.5' in page
    with open(tmp_path / "rounds.csv", newline="") as file:
        assert {ODD, "mae", "loss"} <= next(csv.DictReader(file)).keys()
    first, second = json.loads(call("report", regression, "--json").stdout)
    assert list(first["to_target"]) == ["mae=0.5"]
    assert second["to_target"]["mae=0.5"]["times_less_than_float32"] > 0
    values = [row["metrics"]["mae"] for row in report_of(regression / "uplink=float32")["rounds"]]
    assert first["best"]["median"] == min(values)


def test_bench_counts_up_to_any_value_of_any_metric(regression: Path) -> None:
    other, *_ = json.loads(call("report", regression, "--json", "--target", "mae=1", "--target", "loss=2").stdout)
    assert list(other["to_target"]) == ["loss=2", "mae=1"]
    values = [row["metrics"]["mae"] for row in report_of(regression / "uplink=float32")["rounds"]]
    first = next(number for number, value in enumerate(values, 1) if value <= 1)
    assert other["to_target"]["mae=1"]["round"]["median"] == first
    unknown = call("report", regression, "--target", "mea=1")
    assert unknown.exit_code == 2
    assert "the problem has no metric 'mea'; did you mean 'mae'?" in unknown.output


def test_compare_names_the_metric(regression: Path) -> None:
    cells = sorted(each for each in regression.iterdir() if (each / "run.sqlite").exists())
    changed = {each["figure"] for each in json.loads(call("compare", *cells, "--json").stdout)}
    assert "best mae" in changed and "bytes both ways to mae 0.5" in changed
    assert call("compare", *cells).exit_code == 0


def test_lower_is_better_on_a_plain_axis(regression: Path) -> None:
    axes = measure_by_bytes(read_runs([regression])).axes[0]
    assert (axes.get_ylabel(), axes.get_yscale()) == ("mae on the test set", "linear")
    values = [row["metrics"]["mae"] for row in report_of(regression / "uplink=float32")["rounds"]]
    assert [*axes.lines[0].get_ydata()] == values


def test_progress_shows_the_first_metric(regression: Path) -> None:
    where = reached(regression / "uplink=float32")
    assert where is not None and where.evaluation.startswith("mae 0.")


def test_odd_names_stay_text_in_the_page_of_a_run(regression: Path) -> None:
    content = report_of(regression / "uplink=float32")
    first, second, loss = content["measures"]
    page = run_page({**content, "measures": [second, first, loss]}, ["x"])
    assert "<b>&" not in page
    assert "R² &lt;b&gt;&amp;&#34;$x$&#34;, [red]" in page
    assert f"{max(row['metrics'][ODD] for row in content['rounds']):.4f}</b><span>best R²" in page


def test_snapshot_and_list_of_runs_have_the_metrics(regression: Path) -> None:
    folder, config = existing(regression / "uplink=float32")
    store = Store(folder.database)
    snapshot = read_snapshot(folder, config, store)
    store.close()
    sent = json.loads(msgspec.json.encode(snapshot))
    assert [each["name"] for each in sent["about"]["measures"]] == ["mae", ODD, "loss"]
    assert [*sent["rounds"][-1]["metrics"]] == ["mae", ODD]
    [line] = StoredRuns(folder.path)._lines()
    assert line.measure is not None and line.measure.name == "mae"
    assert line.best == min(row["metrics"]["mae"] for row in sent["rounds"])


@pytest.mark.parametrize(("name", "best"), [("growing", max), ("shrinking", min), ("by_loss", min)])
def test_best_model_is_chosen_by_the_first_metrics_direction_or_the_loss(
    tmp_path: Path, name: str, best: Callable[..., float]
) -> None:
    grid = run(tmp_path, name)
    folder, config = existing(grid / "run")
    store = Store(folder.database)
    rows = make_report(folder, config, store).content["rounds"]
    values = [row["loss"] if name == "by_loss" else row["metrics"]["size"] for row in rows]
    assert store.values()["best"] == str(1 + values.index(best(values)))
    store.close()
    [strategy] = read_runs([grid])
    assert strategy.best().median is not None
    assert call("report", grid).exit_code == 0


def test_run_without_a_test_set_has_reports_without_metrics(tmp_path: Path) -> None:
    grid = run(tmp_path, "unmeasured")
    content = report_of(grid / "run")
    assert (content["measures"], content["to_target"]) == ([], {})
    assert all((row["loss"], row["metrics"]) == (None, {}) for row in content["rounds"])
    assert not (grid / "run" / "best.safetensors").exists()
    done = call("report", grid, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report" / "report.html").read_text().count("<svg") == 1
    page = run_page(content, ["x"])
    assert page.count("<svg") == 1 and "loss" not in page
    printed = CliRunner().invoke(server, ["report", str(grid / "run")])
    assert printed.exit_code == 0 and "loss" not in printed.output
    assert "nothing changed" in call("compare", grid, grid).output
    where = reached(grid / "run")
    assert where is not None and (where.rounds, where.evaluation) == (3, "")


def test_target_without_a_test_set_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "x.toml").write_text(f"problem = '{tmp_path}/task.py:unmeasured'\n{SCENARIO}target = 'mae=0.5'\n")
    done = call("run", tmp_path / "x.toml", "--virtual", "--out", tmp_path)
    assert done.exit_code == 2
    assert "--target mae=0.5 needs a test set, and the problem has none" in done.output


def test_metric_that_is_no_number_is_null_everywhere_and_never_the_best(tmp_path: Path) -> None:
    grid = run(tmp_path, "broken")
    content = report_of(grid / "run")

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    json.loads(json.dumps(content), parse_constant=refuse)
    assert all(row["metrics"]["nothing"] is None and row["metrics"]["mae"] > 0 for row in content["rounds"])
    assert not (grid / "run" / "best.safetensors").exists()
    [strategy] = read_runs([grid])
    assert strategy.best_text() == "–"
    assert call("report", grid).exit_code == 0
    run_page(content, ["x"])
