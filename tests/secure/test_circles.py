"""Circles of a cohort, their thresholds, and the table of docs/PRIVACY.md."""

import pytest

from featherfed.secure.circles import (
    LEAST_MEMBERS,
    MOST_MEMBERS,
    Risks,
    least_of,
    threshold_of,
)


@pytest.mark.parametrize("members", range(LEAST_MEMBERS, MOST_MEMBERS + 1))
def test_a_threshold_is_six_tenths_and_leaves_two_neighbours_tied(members: int) -> None:
    neighbours, threshold = members - 1, threshold_of(members)
    assert 0.6 * neighbours <= threshold <= neighbours
    assert 2 * threshold - neighbours >= 2
    assert least_of(members) <= members


@pytest.mark.parametrize(
    ("members", "may_be_lost", "revealed", "fails", "honest"),
    [(10, 3, -13, 0.0128, 3), (20, 7, -25, 0.0004, 4), (32, 12, -39, 5.5e-6, 5)],
)
def test_risks_are_those_of_the_page(members: int, may_be_lost: int, revealed: int, fails: float, honest: int) -> None:
    risks = Risks(phones=1000, members=members, colluding=0.1, lost=0.1)
    assert risks.may_be_lost == may_be_lost
    assert 2.0 ** (revealed - 0.5) < risks.revealed < 2.0 ** (revealed + 0.5)
    assert risks.fails == pytest.approx(fails, rel=0.15)
    assert risks.honest_in_a_sum == honest


def test_risks_in_a_sentence() -> None:
    assert str(Risks(phones=1000, members=10, colluding=0.1, lost=0.1)) == (
        "circles of 10: a sum is opened though up to 3 of them are lost, and fails with chance 0.013 if 10% are; if 10%"
        " of 1000 phones collude with the server, a circle has with chance 2^-13 the 6 of them that can open its"
        " updates"
    )
    assert str(Risks(phones=20, members=10, colluding=0.1, lost=0.1)).endswith(
        "if 10% of 20 phones collude with the server, a circle never has the 6 of them that can open its updates"
    )
