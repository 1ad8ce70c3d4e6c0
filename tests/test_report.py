"""A report in Python: rounds, metrics by their direction, what a value cost, files and plots."""

import csv
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from safetensors.numpy import load_file

import featherfed as ff
from featherfed.report import Report, Round
from featherfed.server.storage.ledger import Traffic

matplotlib.use("agg")


def made(*values: float | None, metric: str = "mae", higher: bool = False) -> Report:
    """Return the report of rounds with these values, each of 10 bytes up, 100 down and 2 seconds."""
    rounds = tuple(
        Round(
            round=number, cohort=3, accepted=3, late=0, failed=0, loss=None if value is None else value / 2,
            metrics={} if value is None else {metric: value}, seconds=1.5, ended_s=2.0 * number,
            uplink=Traffic(payload=8, socket=10, handshake=3), downlink=Traffic(payload=90, socket=100, handshake=4),
        )
        for number, value in enumerate(values, 1)
    )  # fmt: skip
    return Report(
        problem="task", parameters=4, uplink="float32", downlink="float32", seed=0, rounds=rounds,
        metrics={metric: higher, "loss": False}, weights={"w": np.arange(4, dtype=np.float32)},
    )  # fmt: skip


def test_value_is_reached_by_the_metric_s_own_direction() -> None:
    there = made(9.0, None, 5.0, 6.0).to("mae", 6.0)
    assert (there.round, there.value, there.seconds) == (3, 5.0, 6.0)
    assert (there.spent, there.spent.both) == (ff.Spent(up=30, down=300, handshakes=21), 330)
    assert str(there.spent) == "30 B up + 300 B down = 330 B both ways; 21 B of handshakes beside them"
    assert made(0.5, 0.9, 0.97, metric="accuracy", higher=True).to_accuracy(0.9).spent.both == 220
    assert made(9.0, 5.0).to("loss", 2.5).round == 2


def test_what_is_not_reached_is_told_with_the_best() -> None:
    with pytest.raises(ff.NotReachedError, match=r"^mae 1 was not reached in 3 rounds; the best is 5 in round 2$"):
        made(9.0, 5.0, float("nan")).to("mae", 1)
    with pytest.raises(ff.NotReachedError, match="no round of task was evaluated"):
        made(None).to("mae", 1)
    with pytest.raises(ff.ConfigError, match="the run of task measures no 'accuracy'; known are loss, mae"):
        made(9.0).to_accuracy(0.9)


def test_best_round_is_the_first_of_equals() -> None:
    assert made(9.0, 5.0, 5.0).best("mae").round == 2
    assert made(0.9, 0.5, 0.9, metric="accuracy", higher=True).best().round == 1
    assert made(9.0, 5.0).best().round == 2, "the problem's own metric, where none is named"


def test_report_is_shown_in_a_line_whatever_its_last_round_lacks() -> None:
    assert repr(made(9.0, 5.0)).startswith("<Report of task: 2 rounds, mae 5, loss 2.5, ")
    report = made(9.0)
    lacking = replace(report, rounds=(replace(report.rounds[0], metrics={}),))
    assert repr(lacking).startswith("<Report of task: 1 rounds, mae –, loss 4.5, ")


def test_rows_are_flat_and_files_hold_the_same(tmp_path: Path) -> None:
    report = made(9.0, None)
    rows = report.as_dicts()
    assert rows[0] == {
        "round": 1, "cohort": 3, "accepted": 3, "late": 0, "failed": 0, "loss": 4.5, "seconds": 1.5, "ended_s": 2.0,
        "mae": 9.0, "uplink_theory": 0, "uplink_payload": 8, "uplink_message": 0, "uplink_socket": 10,
        "uplink_handshake": 3, "uplink_resent": 0, "uplink_wasted": 0, "uplink_masks": 0, "uplink_points": 0,
        "downlink_theory": 0, "downlink_payload": 90, "downlink_message": 0, "downlink_socket": 100,
        "downlink_handshake": 4, "downlink_resent": 0, "downlink_wasted": 0, "downlink_masks": 0,
        "downlink_points": 0, "socket": 110, "handshake": 7,
    }  # fmt: skip
    report.save(tmp_path / "x" / "y")
    content = json.loads((tmp_path / "x" / "y" / "report.json").read_text())
    assert content["rounds"] == rows
    assert content["metrics"] == {"mae": False, "loss": False}
    with open(tmp_path / "x" / "y" / "rounds.csv", newline="") as file:
        assert [row["mae"] for row in csv.DictReader(file)] == ["9.0", ""]
    assert load_file(tmp_path / "x" / "y" / "model.safetensors")["w"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ff.ConfigError, match="y exists; choose another one"):
        report.save(tmp_path / "x" / "y")


def test_plot_has_a_point_for_each_evaluation_and_compares() -> None:
    axes = made(9.0, None, 5.0).plot()
    made(8.0, 4.0).plot(axes=axes, label="other", against="uplink_bytes")
    first, second = axes.lines
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([110, 330], [9.0, 5.0])
    assert (list(second.get_xdata()), second.get_label()) == ([10, 20], "other")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("bytes up, all phones", "mae")
    assert made(9.0).plot().get_xlabel() == "bytes both ways, all phones"
    assert list(made(9.0, 5.0).plot("loss", against="seconds").lines[0].get_xdata()) == [2.0, 4.0]
    with pytest.raises(ff.ConfigError, match="against = 'uplink' is nothing to plot against; did you mean"):
        made(9.0).plot(against="uplink")


def test_reports_travel_between_processes_and_say_what_they_are_in_a_line() -> None:
    report = made(9.0, None)
    assert pickle.loads(pickle.dumps(report)) == report
    carried = "20 B up + 200 B down = 220 B both ways; 14 B of handshakes beside them"
    assert repr(report) == f"<Report of task: 2 rounds, mae 9, loss 4.5, {carried}, 4.0 s>"


def test_saved_report_is_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    report = made(9.0, None, math.nan)
    report.save(tmp_path / "x")
    again = ff.Report.load(tmp_path / "x")
    assert repr(again) == repr(report) and str(again.rounds) == str(report.rounds)
    assert replace(again, rounds=()) == replace(report, rounds=(), folder=None)
    assert again.weights["w"].tolist() == report.weights["w"].tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "x holds no saved report: No such file"),
        ("{", "x is no saved report: "),
        ("[1]", "x is no saved report: "),
        ('{"problem": "task"}', "report.json is no saved report: it has no 'parameters'"),
    ],
)
def test_what_is_no_saved_report_is_refused_in_a_sentence(tmp_path: Path, text: str | None, words: str) -> None:
    (tmp_path / "x").mkdir()
    if text is not None:
        (tmp_path / "x" / "report.json").write_text(text)
    with pytest.raises(ff.ConfigError, match=words):
        ff.Report.load(tmp_path / "x")
