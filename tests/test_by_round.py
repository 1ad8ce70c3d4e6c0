"""A value by round: how it is written, what it is in each round, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.by_round import ByRound, by_round, is_by_round, steps
from featherfed.errors import ConfigError


@pytest.mark.parametrize(
    "value", ["12,12,12,12,6", "1:12,5:6", " 5 : 6 , 1 : 12 ", {"1": "12", "5": "6"}, {5: "6", 1: "12"}]
)
def test_ways_to_write_it_mean_the_same(value: Any) -> None:
    assert by_round(value) == ByRound("12", {5: "6"})


def test_last_value_stays() -> None:
    values = by_round([12, 6])
    assert [values.at(number) for number in (0, 1, 2, 3, 1000)] == [12, 12, 6, 6, 6]
    assert values.values == (12, 6)


@given(st.dictionaries(st.integers(2, 40), st.integers(0, 5)), st.integers(0, 5))
def test_text_is_read_as_what_it_was_written_from(later: dict[int, int], first: int) -> None:
    values = steps({1: first, **later})
    known = {1: first, **later}
    for number in range(1, 45):
        assert values.at(number) == known[max(each for each in known if each <= number)]
    text = values.text()
    assert is_by_round(text) == bool(values.later)
    if values.later:
        assert by_round(text).map(int) == values


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("5:6", "'5:6' says nothing of round 1: begin with 1:"),
        ("12,5:6", "'12,5:6' names the rounds of some values and not of others"),
        ("12,", "'12,' has a round without a value"),
        ("1:,5:6", "has a round without a value"),
        ("1:12,1:6", "'1:12,1:6' names round 1 twice"),
        ("0:12,1:6", "names round 0, and rounds count from 1"),
        ({}, "{} has no value, like 12,6 for rounds 1 and 2"),
        ([], r"\[\] has no value"),
        ({"5": 6}, "says nothing of round 1: begin with 1"),
        ({"first": 6}, "has 'first' where the number of a round was expected"),
        ({True: 6}, "has True where the number of a round was expected"),
        ({"1": 6, "01": 7}, "names round 1 twice"),
        ([[12, 6], 3], r"has \[12, 6\] for round 1, and a round has one value"),
        (["12,6", "3"], "has '12,6' for round 1, and a round has one value"),
    ],
)
def test_what_says_no_value_for_a_round_or_two_is_refused_in_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        by_round(value)
    assert "\n" not in str(caught.value)
