"""The machine of one circle: who is asked what, when nobody waits, and how a circle ends."""

from collections.abc import Iterable

import pytest

from featherfed.server.rounds.circle import (
    Answered,
    Arrived,
    Back,
    Circle,
    CircleAction,
    CircleEvent,
    CirclePhase,
    Expired,
    Gone,
    Open,
    Opened,
    SendList,
    SentList,
    UploadsOver,
)
from featherfed.server.rounds.circle_machine import advance, resumed

MEMBERS = (5, 3, 8, 1, 7, 4, 2)
CIRCLE = Circle(members=MEMBERS, threshold=4, least=5)


def fed(circle: Circle, *events: CircleEvent) -> tuple[Circle, tuple[CircleAction, ...]]:
    """Feed events, and return the actions of the last."""
    actions: tuple[CircleAction, ...] = ()
    for event in events:
        circle, actions = advance(circle, event)
    return circle, actions


def arrived(*shards: int) -> list[CircleEvent]:
    return [Arrived(shard) for shard in shards]


def answered(version: int, shards: Iterable[int]) -> list[CircleEvent]:
    return [Answered(shard, version) for shard in shards]


def sent(actions: tuple[CircleAction, ...]) -> SentList:
    (action,) = actions
    assert isinstance(action, SendList)
    return action.list_


def holders_of(list_: SentList) -> dict[int, int]:
    """Return how many are asked for each one's share."""
    asked = [of for _, shares in list_.asked for of in shares]
    return {of: asked.count(of) for of in list_.alive}


def test_all_here_are_asked_for_shares_at_once_and_equally() -> None:
    circle, actions = fed(CIRCLE, *arrived(*MEMBERS))
    list_ = sent(actions)
    assert (list_.version, list_.final, list_.alive) == (1, True, frozenset(MEMBERS))
    assert list_.recipients == MEMBERS
    assert {len(of) for _, of in list_.asked} == {5}
    assert set(holders_of(list_).values()) == {5}
    assert all(holder not in of for holder, of in list_.asked)
    assert circle.phase is CirclePhase.OPENING
    assert circle.spent == set(MEMBERS)


def test_the_sum_is_opened_once_enough_have_told() -> None:
    circle, _ = fed(CIRCLE, *arrived(*MEMBERS), *answered(1, MEMBERS[:5]))
    assert not circle.opening
    circle, actions = fed(circle, Answered(4, 1))
    assert actions == (Open(frozenset(MEMBERS)),)
    circle, actions = fed(circle, Answered(2, 1), Opened())
    assert (circle.phase, actions) == (CirclePhase.SUMMED, ())
    assert circle.over


def test_those_left_tell_of_the_missing_before_shares_are_asked_for() -> None:
    circle, actions = fed(CIRCLE, *arrived(5, 3, 8, 1, 7), UploadsOver())
    list_ = sent(actions)
    assert (list_.final, list_.alive) == (False, {5, 3, 8, 1, 7})
    assert all(of == {4, 2} for _, of in list_.asked)
    assert circle.asked(3, 1) == (4, 2)
    assert circle.waiting == {5, 3, 8, 1, 7}
    circle, actions = fed(circle, *answered(1, (5, 3, 8, 1)))
    assert not actions
    _, actions = fed(circle, Answered(7, 1))
    assert (sent(actions).version, sent(actions).final) == (2, True)


def test_who_says_nothing_until_the_deadline_is_out_of_the_next_list() -> None:
    circle, _ = fed(CIRCLE, *arrived(5, 3, 8, 1, 7, 4), UploadsOver(), *answered(1, (5, 3, 8, 1, 7)))
    circle, actions = fed(circle, Expired(1))
    list_ = sent(actions)
    assert (list_.version, list_.final, list_.alive) == (2, False, {5, 3, 8, 1, 7})
    # What was told of shard 2 is not asked for again.
    assert all(of == {4} for _, of in list_.asked)
    # Too late: it was called gone, and a share of its seed must never be told.
    circle, actions = fed(circle, Answered(4, 1), *answered(2, (5, 3, 8, 1, 7)))
    assert sent(actions).alive == {5, 3, 8, 1, 7}


def test_who_is_away_is_out_at_once_and_nobody_waits() -> None:
    _, actions = fed(CIRCLE, *arrived(5, 3, 8, 1, 7, 4), UploadsOver(), Gone(4))
    assert sent(actions).alive == {5, 3, 8, 1, 7}
    _, actions = fed(CIRCLE, *arrived(5, 3, 8, 1, 7, 4), Gone(4), UploadsOver())
    assert (sent(actions).version, sent(actions).alive) == (1, {5, 3, 8, 1, 7})


def test_who_is_away_and_has_told_stays_in() -> None:
    circle, actions = fed(CIRCLE, *arrived(5, 3, 8, 1, 7, 4), UploadsOver(), Answered(4, 1), Gone(4))
    assert not actions
    assert circle.survivors == {5, 3, 8, 1, 7, 4}
    circle, actions = fed(circle, *answered(1, (5, 3, 8, 1, 7)))
    assert sent(actions).alive == {5, 3, 8, 1, 7, 4}
    assert 4 not in sent(actions).recipients


def test_who_is_away_is_waited_for_where_too_few_are_left() -> None:
    circle, actions = fed(CIRCLE, *arrived(5, 3, 8, 1, 7), UploadsOver(), Gone(7))
    assert not actions
    circle, actions = fed(circle, Back(7))
    assert actions == (SendList(circle.lists[0], (7,)),)
    circle, _ = fed(circle, Gone(7), Expired(1))
    assert circle.phase is CirclePhase.FAILED
    assert not circle.spent


def test_shares_of_who_falls_silent_are_asked_of_others() -> None:
    circle, _ = fed(CIRCLE, *arrived(*MEMBERS), *answered(1, (5, 3, 8, 1)))
    circle, actions = fed(circle, Gone(7), Gone(4))
    list_ = sent(actions)
    assert (list_.version, list_.final, list_.alive) == (2, True, frozenset(MEMBERS))
    assert not set(list_.recipients) & {7, 4}
    circle, actions = fed(circle, Answered(2, 1), *answered(2, list_.recipients))
    assert actions == (Open(frozenset(MEMBERS)),)


def test_the_deadline_of_a_final_list_asks_others_and_then_fails() -> None:
    circle, _ = fed(CIRCLE, *arrived(*MEMBERS), *answered(1, (5, 3, 8)))
    circle, actions = fed(circle, Expired(1))
    # Those three have told five shares of others each, and there are four others.
    assert sent(actions).version == 2
    assert set(sent(actions).recipients) <= {5, 3, 8}
    circle, actions = fed(circle, Expired(2))
    assert (circle.phase, actions) == (CirclePhase.FAILED, ())
    assert circle.spent == set(MEMBERS)


def test_who_comes_back_is_asked_where_shares_are_lacking() -> None:
    circle, _ = fed(CIRCLE, *arrived(*MEMBERS), Gone(1), Gone(7), Gone(4), *answered(1, (5, 3, 8, 2)))
    assert not circle.opening
    circle, _ = fed(circle, *answered(circle.lists[-1].version, (5, 3, 8, 2)))
    circle, actions = fed(circle, Back(7))
    assert all(isinstance(action, SendList) and action.to == (7,) for action in actions)


def test_deadlines_of_old_lists_change_nothing() -> None:
    circle, _ = fed(CIRCLE, *arrived(5, 3, 8, 1, 7, 4), UploadsOver(), Expired(0), Gone(4))
    assert fed(circle, Expired(1)) == (circle, ())


def test_liars_are_replaced_and_named() -> None:
    circle, actions = fed(CIRCLE, *arrived(*MEMBERS), *answered(1, MEMBERS))
    circle, actions = fed(circle, Opened(lacking=frozenset({5}), at_fault=frozenset({3})))
    list_ = sent(actions)
    assert list_.final
    assert {of for _, asked in list_.asked for of in asked} >= {5}
    assert 3 not in list_.recipients
    circle, actions = fed(circle, *answered(2, list_.recipients))
    assert actions == (Open(frozenset(MEMBERS)),)
    circle, _ = fed(circle, Opened())
    assert circle.phase is CirclePhase.SUMMED
    assert circle.at_fault == {3}


def test_a_spoilt_sum_fails() -> None:
    circle, actions = fed(CIRCLE, *arrived(*MEMBERS), *answered(1, MEMBERS), Opened(spoilt=True))
    assert (circle.phase, actions) == (CirclePhase.FAILED, ())


def test_where_nothing_is_masked_the_sum_is_opened_at_once() -> None:
    circle = Circle(members=MEMBERS, threshold=0, least=1)
    opening, actions = fed(circle, *arrived(3, 8), UploadsOver())
    assert actions == (Open(frozenset({3, 8})),)
    assert fed(opening, Opened())[0].phase is CirclePhase.SUMMED
    assert fed(circle, UploadsOver())[0].phase is CirclePhase.FAILED
    assert fed(circle, *arrived(*MEMBERS))[1] == (Open(frozenset(MEMBERS)),)


@pytest.mark.parametrize("event", [Arrived(9), Answered(5, 1), Answered(9, 1), Expired(1), Opened(), Back(5)])
def test_what_does_not_matter_changes_nothing(event: CircleEvent) -> None:
    assert fed(CIRCLE, event) == (CIRCLE, ())


def test_an_answer_counts_once_and_only_of_who_was_asked() -> None:
    circle, _ = fed(CIRCLE, *arrived(5, 3, 8, 1, 7), UploadsOver(), Answered(5, 1))
    assert fed(circle, Answered(5, 1)) == (circle, ())
    assert fed(circle, Answered(4, 1)) == (circle, ())
    assert fed(circle, Answered(3, 9)) == (circle, ())


def test_a_killed_server_sends_what_is_unanswered_and_opens_again() -> None:
    circle, _ = fed(CIRCLE, *arrived(5, 3, 8, 1, 7), UploadsOver(), *answered(1, (5, 3)))

    def back(circle: Circle) -> tuple[Circle, tuple[CircleAction, ...]]:
        return resumed(
            Circle.restored(
                members=MEMBERS, threshold=4, least=5, arrived=circle.arrived, answered=circle.answered,
                lists=[SentList.from_bytes(list_.to_bytes()) for list_ in circle.lists],
            )
        )  # fmt: skip

    again, actions = back(circle)
    assert again == circle
    assert actions == (SendList(circle.lists[0], (8, 1, 7)),)
    circle, _ = fed(circle, *answered(1, (8, 1, 7)))
    assert back(circle) == (circle, (SendList(circle.lists[1], (5, 3, 8, 1, 7)),))
    circle, _ = fed(circle, *answered(2, (5, 3, 8, 1, 7)))
    assert back(circle) == (circle, (Open(circle.survivors),))
    # All were here, and the list was not on the disk yet.
    _, actions = back(Circle(members=MEMBERS, threshold=4, least=5, arrived=frozenset(MEMBERS)))
    assert sent(actions).final
    # The last answer was, and the final list was not.
    circle, _ = fed(CIRCLE, *arrived(5, 3, 8, 1, 7), UploadsOver())
    told = Circle.restored(
        members=MEMBERS, threshold=4, least=5, arrived=circle.arrived, lists=circle.lists,
        answered=[(shard, 1) for shard in circle.survivors],
    )  # fmt: skip
    assert sent(resumed(told)[1]).final


def test_how_a_circle_ended_survives() -> None:
    over = Circle.restored(
        members=MEMBERS, threshold=4, least=5, arrived=MEMBERS, lists=[], answered=[], ended=CirclePhase.FAILED
    )
    assert resumed(over) == (over, ())
    assert over.over and not over.waiting
