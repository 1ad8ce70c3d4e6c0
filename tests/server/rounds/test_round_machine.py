"""Each transition of the table on its own, from a state that is written out."""

from dataclasses import replace
from typing import Any

import pytest

from featherfed.by_round import ByRound
from featherfed.server.rounds.events import (
    Accept,
    Assign,
    CancelPhones,
    Closed,
    CloseRound,
    Deadline,
    Event,
    Fail,
    Finished,
    GaveUp,
    Joined,
    Lost,
    OpenRound,
    Pause,
    Resume,
    Stop,
)
from featherfed.server.rounds.round_machine import TABLE, Phase, Rules, RunState, advance

RULES = Rules(phones=4, rounds=3, cohort_size=ByRound(3), target=ByRound(2), min_updates=2, max_retries=1, seed=0)
EVERYONE = frozenset(range(4))
EVENTS: tuple[Event, ...] = (
    Joined(0), Lost(0), Accept(0, 1), Fail(0), GaveUp(0), Deadline(1, 0), Closed(1, False), Resume(), Stop(),
)  # fmt: skip


def gathering(**changes: Any) -> RunState:
    return replace(RunState(RULES), **changes)


def opened(**changes: Any) -> RunState:
    state = RunState(RULES, Phase.OPEN, 1, 0, frozenset({0, 1, 2}), present=EVERYONE)
    return replace(state, **changes)


def closing(**changes: Any) -> RunState:
    return replace(opened(accepted=frozenset({0, 1})), phase=Phase.CLOSING, **changes)


def test_run_waits_for_all_its_phones_and_then_opens_round_1() -> None:
    state, actions = gathering(), ()
    for shard in (3, 1, 0):
        state, actions = advance(state, Joined(shard))
        assert (state.phase, actions) == (Phase.GATHERING, ())
    state, (action,) = advance(state, Joined(2))
    assert (state.phase, state.round_number, state.attempt) == (Phase.OPEN, 1, 0)
    assert isinstance(action, OpenRound)
    assert (action.round_number, action.attempt, len(action.cohort)) == (1, 0, 3)
    assert state.cohort == frozenset(action.cohort)


def test_phone_that_joins_twice_counts_once() -> None:
    state = gathering(present=frozenset({0, 1, 2}))
    assert advance(state, Joined(2)) == (state, ())


def test_phone_that_is_lost_while_gathering_is_waited_for_again() -> None:
    state, _ = advance(gathering(present=frozenset({0, 1, 2})), Lost(2))
    state, _ = advance(state, Joined(3))
    assert state.phase is Phase.GATHERING


def test_quorum_closes_the_round_and_cancels_the_straggler() -> None:
    state, actions = advance(opened(), Accept(2, 1))
    assert (state.phase, actions) == (Phase.OPEN, ())
    state, actions = advance(state, Accept(0, 1))
    assert state.phase is Phase.CLOSING
    assert actions == (CancelPhones(1, (1,)), CloseRound(1, (0, 2)))


def test_last_answer_closes_a_round_that_can_not_reach_its_quorum() -> None:
    rules = replace(RULES, target=ByRound(3))
    state, actions = advance(opened(rules=rules, accepted=frozenset({0, 1})), Fail(2))
    assert state.phase is Phase.CLOSING
    assert actions == (CloseRound(1, (0, 1)),)


@pytest.mark.parametrize(
    "event",
    [Accept(3, 1), Accept(0, 2), Accept(1, 1), Fail(3), Fail(1), Deadline(2, 0), Deadline(1, 1), Closed(1, False)],
    ids=repr,
)
def test_event_that_does_not_matter_changes_nothing(event: Event) -> None:
    state = opened(accepted=frozenset({1}))
    assert advance(state, event) == (state, ())


def test_deadline_with_enough_updates_closes() -> None:
    rules = replace(RULES, target=ByRound(3))
    state, actions = advance(opened(rules=rules, accepted=frozenset({0, 2})), Deadline(1, 0))
    assert state.phase is Phase.CLOSING
    assert actions == (CancelPhones(1, (1,)), CloseRound(1, (0, 2)))


def test_deadline_with_too_few_asks_fresh_phones_and_keeps_what_was_accepted() -> None:
    state, actions = advance(opened(accepted=frozenset({1})), Deadline(1, 0))
    assert (state.phase, state.round_number, state.attempt) == (Phase.OPEN, 1, 1)
    assert state.accepted == frozenset({1})
    assert OpenRound(1, 1, (3,)) in actions
    assert state.outstanding == frozenset({3})


def test_retry_without_fresh_phones_asks_the_silent_ones_again_but_not_the_failed() -> None:
    state = opened(present=frozenset({0, 1, 2}), accepted=frozenset({1}), failed=frozenset({2}))
    state, actions = advance(state, Deadline(1, 0))
    assert OpenRound(1, 1, (0,)) in actions
    assert state.outstanding == frozenset({0})


def test_too_many_retries_pause_the_run_with_the_numbers() -> None:
    state, actions = advance(opened(attempt=1, accepted=frozenset({1})), Deadline(1, 1))
    assert state.phase is Phase.PAUSED
    assert actions[-1] == Pause("round 1 had 1 of at least 2 updates in each of 2 attempts")


def test_phone_of_the_cohort_that_comes_back_gets_its_task_again() -> None:
    state, actions = advance(opened(present=frozenset({1})), Joined(0))
    assert actions == (Assign(0),)
    assert 0 in state.present


@pytest.mark.parametrize("changes", [{"accepted": frozenset({0})}, {"failed": frozenset({0})}, {"cohort": frozenset()}])
def test_phone_that_is_not_awaited_comes_back_without_a_task(changes: dict[str, Any]) -> None:
    state, actions = advance(opened(present=frozenset(), **changes), Joined(0))
    assert actions == ()
    assert state.present == frozenset({0})


def test_phone_that_comes_to_a_retry_with_room_is_taken() -> None:
    state = opened(attempt=1, cohort=frozenset({0, 1}), present=frozenset({0, 1}))
    state, actions = advance(state, Joined(3))
    assert actions == (Assign(3),)
    assert state.outstanding == frozenset({0, 1, 3})
    full = opened(attempt=1)
    assert advance(full, Joined(3)) == (full, ())


def test_lost_phone_is_still_awaited_but_not_asked_next_time() -> None:
    state, actions = advance(opened(), Lost(0))
    assert actions == ()
    assert 0 in state.outstanding
    assert 0 not in state.present


def test_close_opens_the_next_round_with_a_clean_slate() -> None:
    state, (action,) = advance(closing(), Closed(1, False))
    assert isinstance(action, OpenRound)
    assert (state.phase, state.round_number, state.attempt) == (Phase.OPEN, 2, 0)
    assert (state.accepted, state.failed) == (frozenset(), frozenset())
    assert action.round_number == 2


@pytest.mark.parametrize(("number", "reached"), [(3, False), (1, True)])
def test_last_round_or_the_target_ends_the_run(number: int, reached: bool) -> None:
    state, actions = advance(closing(round_number=number), Closed(number, reached))
    assert state.phase is Phase.DONE
    assert actions == (Finished(),)


def test_close_of_another_round_changes_nothing() -> None:
    assert advance(closing(), Closed(2, False)) == (closing(), ())


def test_resumed_round_asks_only_for_what_is_missing() -> None:
    state = opened(accepted=frozenset({1}))
    assert advance(state, Resume()) == (state, (OpenRound(1, 0, (0, 2)),))


def test_resumed_round_that_had_its_quorum_closes_at_once() -> None:
    state, actions = advance(opened(accepted=frozenset({1, 2})), Resume())
    assert state.phase is Phase.CLOSING
    assert actions[-1] == CloseRound(1, (1, 2))


def test_resumed_run_goes_on_after_its_last_closed_round() -> None:
    state, (action,) = advance(gathering(round_number=2, present=EVERYONE), Resume())
    assert isinstance(action, OpenRound)
    assert (state.round_number, action.round_number) == (3, 3)


def test_resumed_run_without_enough_phones_gathers() -> None:
    state = gathering(round_number=2, present=frozenset({0, 1}))
    assert advance(state, Resume()) == (state, ())


def test_resumed_run_that_was_done_is_done() -> None:
    state, actions = advance(gathering(round_number=3, present=EVERYONE), Resume())
    assert state.phase is Phase.DONE
    assert actions == (Finished(),)


@pytest.mark.parametrize("state", [gathering(), opened(), closing()], ids=lambda state: state.phase.value)
def test_operator_stops_a_run_wherever_it_is(state: RunState) -> None:
    after, actions = advance(state, Stop())
    assert after.phase is Phase.PAUSED
    assert actions == (Pause("the operator stopped the run"),)
    assert (after.round_number, after.accepted, after.cohort) == (state.round_number, state.accepted, state.cohort)


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.PAUSED])
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_run_that_ended_does_nothing_more(phase: Phase, event: Event) -> None:
    after, actions = advance(opened(phase=phase), event)
    assert (after.phase, actions) == (phase, ())


def test_every_phase_has_its_row() -> None:
    assert set(TABLE) == set(Phase)


def test_phone_that_cannot_train_is_not_waited_for_in_this_round_or_before_the_first() -> None:
    state, actions = advance(RunState(RULES), GaveUp(0))
    assert (state.phase, actions) == (Phase.GATHERING, ())
    for shard in range(1, RULES.phones):
        state, actions = advance(state, Joined(shard))
    assert state.phase is Phase.OPEN and 0 not in state.cohort
    state, actions = advance(opened(accepted=frozenset({0, 1})), GaveUp(2))
    assert 2 not in state.present and 2 in state.failed


def test_each_round_asks_and_waits_for_as_many_as_its_own_values_say() -> None:
    rules = Rules(
        phones=6, rounds=3, cohort_size=ByRound(5, {2: 3}), target=ByRound(4, {2: 2}), min_updates=1, max_retries=1,
        seed=0,
    )  # fmt: skip
    state = RunState(rules, present=frozenset(range(5)))
    state, (action,) = advance(state, Joined(5))
    asked, counted = [], []
    while isinstance(action, OpenRound):
        asked.append(len(action.cohort))
        for count, shard in enumerate(sorted(state.cohort), 1):
            state, _ = advance(state, Accept(shard, state.round_number))
            if state.phase is Phase.CLOSING:
                counted.append(count)
                break
        state, (*_, action) = advance(state, Closed(state.round_number, False))
    assert (asked, counted) == ([5, 3, 3], [4, 2, 2])


def test_retry_asks_as_many_as_its_round_lacks() -> None:
    rules = Rules(
        phones=6, rounds=3, cohort_size=ByRound(5, {2: 2}), target=ByRound(5, {2: 2}), min_updates=2, max_retries=1,
        seed=0,
    )  # fmt: skip
    state = RunState(rules, Phase.OPEN, 2, 0, frozenset({0, 1}), frozenset({0}), present=frozenset(range(6)))
    state, (*_, action) = advance(state, Deadline(2, 0))
    assert isinstance(action, OpenRound) and len(action.cohort) == 1
    # A cohort that is full takes nobody else in, however many the first round asked.
    other = min(set(range(6)) - state.cohort)
    assert advance(replace(state, present=state.present - {other}), Joined(other)) == (state, ())


def test_resumed_round_whose_phones_have_all_failed_asks_them_once_more() -> None:
    """Each attempt was used up: it would pause again at once, for ever."""
    state = opened(attempt=1, accepted=frozenset({0}), failed=frozenset({1, 2}))
    state, actions = advance(state, Resume())
    assert actions == (OpenRound(1, 1, (1, 2)),)
    assert (state.phase, state.failed) == (Phase.OPEN, frozenset())
    assert advance(state, Accept(2, 1))[0].phase is Phase.CLOSING


def test_each_life_of_the_server_has_retries_of_its_own() -> None:
    """Who was asked last may never come back, while others are there who would play."""
    state, _ = advance(opened(attempt=1, cohort=frozenset({0})), Resume())
    state, actions = advance(state, Deadline(1, 1))
    assert actions == (CancelPhones(1, (0,)), OpenRound(1, 2, (1, 2, 3)))
    state, actions = advance(state, Deadline(1, 2))
    assert state.phase is Phase.PAUSED and isinstance(actions[0], Pause)


def test_resumed_round_tries_those_who_failed_though_another_one_is_silent() -> None:
    """Whoever is connected and says nothing would keep them from being asked, for ever."""
    state, actions = advance(opened(attempt=1, accepted=frozenset({0}), failed=frozenset({1})), Resume())
    assert actions == (OpenRound(1, 1, (1, 2)),)
    assert advance(state, Accept(1, 1))[0].phase is Phase.CLOSING


def test_resumed_round_without_retries_asks_who_was_not_there_when_it_opened() -> None:
    """It would pause again at once, for ever, though enough are there."""
    alone = frozenset({0})
    state = opened(rules=replace(RULES, max_retries=0), cohort=alone, accepted=alone, present=frozenset({0, 1, 2}))
    state, actions = advance(state, Resume())
    assert actions == (OpenRound(1, 1, (1, 2)),)
    assert advance(state, Deadline(1, 1))[0].phase is Phase.PAUSED
    assert advance(state, Accept(2, 1))[0].phase is Phase.CLOSING
