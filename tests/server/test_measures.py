"""Names, directions and targets of metrics, without a run."""

import math

import pytest

from featherfed.errors import ConfigError
from featherfed.server.measures import LOSS, Measure, Target, from_text, to_text

ACCURACY, MAE = Measure("accuracy", fraction=True), Measure("mae", higher_is_better=False)


def test_score_rises_with_what_is_better_and_no_number_is_worst() -> None:
    assert ACCURACY.score(0.9) > ACCURACY.score(0.8)
    assert MAE.score(0.2) > MAE.score(0.3)
    assert MAE.score(None) == MAE.score(math.nan) == -math.inf


def test_target_is_reached_by_its_direction() -> None:
    assert ACCURACY.reaches(0.97, 0.97) and not ACCURACY.reaches(0.96, 0.97)
    assert MAE.reaches(0.3, 0.3) and not MAE.reaches(0.31, 0.3)
    assert not MAE.reaches(None, 0.3) and not MAE.reaches(math.nan, 0.3)


@pytest.mark.parametrize(
    ("text", "shown"), [("accuracy=0.97", "accuracy=0.97"), ("mae = 3", "mae=3"), ("loss=1e-3", "loss=0.001")]
)
def test_target_is_a_name_and_a_number(text: str, shown: str) -> None:
    assert str(Target.parse(text)) == shown
    assert Target.parse(shown) == Target.parse(text)


@pytest.mark.parametrize("text", ["accuracy", "accuracy=", "=0.5", "mae=nan", "mae=inf", "mae=0.1=2", "0.97"])
def test_what_is_no_target_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a metric and its value, like accuracy=0\.97 or loss=0\.1"):
        Target.parse(text)


def test_target_of_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="the problem has no metric 'accurcy'; did you mean 'accuracy'"):
        Target.parse("accurcy=0.9").measure((ACCURACY, LOSS))
    assert Target.parse("loss=0.1").measure((ACCURACY, LOSS)) == LOSS


def test_percentages_are_no_fractions_but_any_number_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--target accuracy=97 is not a fraction from 0 to 1"):
        Target.parse("accuracy=97").measure((ACCURACY,))
    assert Target.parse("mae=97").measure((MAE,)) == MAE


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [(ACCURACY, 0.9712, "97.12%"), (MAE, 0.31, "0.3100"), (MAE, 21_500.25, "21500"), (MAE, 1.5e-5, "1.5e-05"),
     (MAE, 0.0, "0.0000"), (MAE, -0.5, "-0.5000"), (ACCURACY, math.nan, "nan"), (MAE, math.inf, "inf"),
     (MAE, None, "–")],
)  # fmt: skip
def test_fractions_are_percentages_and_other_numbers_plain(measure: Measure, value: float | None, text: str) -> None:
    assert measure.text(value) == text


def test_measures_are_kept_as_they_are() -> None:
    measures = (Measure('R² <b>&"$x$", [red]'), ACCURACY, LOSS)
    assert from_text(to_text(measures)) == measures
