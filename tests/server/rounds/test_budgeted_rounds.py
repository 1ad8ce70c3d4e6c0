"""Rounds of a run whose phones have a budget: whom they ask, who pays, and when the run ends."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.by_round import ByRound
from featherfed.privacy.accounting import Price
from featherfed.privacy.budget import Account, Budget
from featherfed.server.rounds.events import Accept, Assign, Closed, CloseRound, Deadline, Joined, OpenRound, Pause
from featherfed.server.rounds.round_machine import Phase, Rules, RunState, advance

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

BUDGET = Budget(rho=0.5, delta=1e-3, participations=2)
RULES = Rules(
    phones=6, rounds=9, cohort_size=ByRound(3), target=ByRound(3), min_updates=2, max_retries=1, seed=0, budget=BUDGET
)


def gathered(rules: Rules = RULES) -> RunState:
    state = RunState(rules)
    for shard in range(rules.phones):
        state, _ = advance(state, Joined(shard))
    return state


def close(state: RunState, answering: frozenset[int]) -> RunState:
    """Let these of the cohort answer, and the others be late; close the round."""
    for shard in sorted(answering):
        state, _ = advance(state, Accept(shard, state.round_number))
    if state.phase is Phase.OPEN:
        state, _ = advance(state, Deadline(state.round_number, state.attempt))
    return state


def test_cohorts_take_those_who_have_taken_part_least() -> None:
    state = gathered()
    asked = []
    for _ in range(4):
        asked.append(state.cohort)
        state, _ = advance(close(state, state.cohort), Closed(state.round_number, False))
    assert asked[0] | asked[1] == asked[2] | asked[3] == frozenset(range(6))


def test_who_did_not_answer_has_paid_nothing_and_is_asked_again() -> None:
    state = gathered()
    silent = min(state.cohort)
    state, _ = advance(close(state, state.cohort - {silent}), Closed(1, False))
    assert state.account.of(silent).rounds == 0 and silent in state.cohort


def test_run_pauses_with_what_was_spent_once_too_few_may_be_in_another_round() -> None:
    state = gathered()
    for number in range(1, 5):
        state, actions = advance(close(state, state.cohort), Closed(number, False))
    assert state.phase is Phase.PAUSED
    (pause,) = actions
    assert isinstance(pause, Pause)
    assert pause.reason.startswith("the privacy budget is spent: ε ")
    assert (
        " after round 4, and no phone is in more than 2 rounds (--participations); another would make" in pause.reason
    )


def test_last_round_that_spends_the_budget_ends_the_run_in_order() -> None:
    state = gathered(replace(RULES, rounds=4))
    for number in range(1, 5):
        state, _ = advance(close(state, state.cohort), Closed(number, False))
    assert state.phase is Phase.DONE


def test_attempt_asks_nobody_whose_budget_is_spent() -> None:
    spent = Account().charged([4], Price(0.5)).charged([4], Price(0.5))
    state = replace(gathered(), account=spent, cohort=frozenset({0, 1, 2}), present=frozenset({0, 1, 2, 4, 5}))
    state, actions = advance(state, Deadline(1, 0))
    (opened,) = [action for action in actions if isinstance(action, OpenRound)]
    assert opened.cohort == (5,)
    state = replace(state, present=state.present - {4})
    assert advance(state, Joined(4))[1] == ()
    assert advance(state, Joined(3))[1] == (Assign(3),)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_no_phone_is_in_more_rounds_than_it_may_whoever_answers(data: st.DataObject, most: int) -> None:
    state = gathered(replace(RULES, rounds=40, budget=replace(BUDGET, participations=most)))
    counted: Counter[int] = Counter()
    for _ in range(200):
        if state.phase is not Phase.OPEN:
            break
        answering = frozenset(shard for shard in sorted(state.outstanding) if data.draw(st.booleans()))
        state = close(state, answering)
        if state.phase is Phase.CLOSING:
            counted.update(state.accepted)
            state, _ = advance(state, Closed(state.round_number, False))
    assert max(counted.values(), default=0) <= most
    assert {shard: state.account.of(shard).rounds for shard in counted} == dict(counted)


def test_close_round_names_those_who_pay() -> None:
    state = gathered()
    cohort = state.cohort
    for shard in sorted(cohort):
        state, actions = advance(state, Accept(shard, 1))
    assert actions == (CloseRound(1, tuple(sorted(cohort))),)
