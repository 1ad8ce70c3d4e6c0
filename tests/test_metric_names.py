"""What a metric of a problem may be called: its name stands in targets, tables, labels and columns."""

from typing import Any

import pytest

from featherfed.errors import ConfigError
from featherfed.problem import COLUMNS, Metric, Problem, accuracy, metric
from featherfed.server.storage.ledger import DIRECTIONS, FIELDS
from featherfed.server.storage.report import flat


def nothing(*given: Any) -> float:
    return 0.0


def problem(*names: Any) -> Problem:
    return Problem(nothing, examples=nothing, metrics=dict.fromkeys(names, nothing))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mae", "top-5 accuracy", "F1 (macro)", "R²", 'a <b>&"$x$", [red]', "誤差", "x" * 64])
def test_printable_names_are_taken(name: str) -> None:
    assert list(problem(name, "accuracy").measures) == [name, "accuracy"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "1 to 64 printable characters"), ("x" * 65, "1 to 64 printable characters"),
     ("a\nb", "1 to 64 printable characters"), ("a\x1b[31m", "1 to 64 printable characters"),
     (7, "1 to 64 printable characters"), ("=1+1", "begins with a letter or digit, and has no ="),
     ("+1", "begins with a letter or digit"), ("a=b", "has no ="), ("..", "begins with a letter or digit"),
     ("a ", "begins with a letter or digit"), ("loss", "cannot be called loss: every round has a figure"),
     ("Seconds", "cannot be called Seconds"), ("uplink_socket", "cannot be called uplink_socket")],
)  # fmt: skip
def test_other_names_are_refused_in_a_sentence(name: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        problem(name)


def test_no_metric_can_take_the_place_of_a_reports_own_column() -> None:
    row = {name: None for name in COLUMNS} | {"metrics": {}}
    row |= {way: dict.fromkeys(FIELDS, 0) for way in DIRECTIONS} | {"socket": 0, "handshake": 0}
    for name in flat(row, ()):
        with pytest.raises(ConfigError, match="every round has a figure of that name"):
            problem(name)


def test_accuracy_is_a_metric_like_any_other() -> None:
    assert isinstance(accuracy, Metric)
    assert (accuracy.higher_is_better, accuracy.whole, accuracy.fraction) == (True, False, True)

    @metric(higher_is_better=False, fraction=True)
    def error(outputs: Any, targets: Any) -> float:
        return 0.5

    assert (error.higher_is_better, error.fraction, error(1, 2)) == (False, True, 0.5)
