"""Whole rounds of a circle: real keys, masks and shares, phones that are silent from any step on."""

import pytest

from featherfed.server.rounds.circle import CirclePhase
from tests.secure.rounds import Phones, Server, context_of, sum_of

CIRCLE = (11, 4, 7, 0, 9)


def test_a_round_of_all_is_the_sum_of_all() -> None:
    phones = Phones(context_of(CIRCLE))
    server = Server(phones)
    for shard in CIRCLE:
        server.arrive(shard)
    assert server.circle.phase is CirclePhase.SUMMED
    assert server.opened is not None
    assert server.opened.residues.tolist() == sum_of(phones.updates.values())
    # Nobody was missing: one list, which is final.
    assert len(server.circle.lists) == 1


@pytest.mark.parametrize("missing", CIRCLE)
def test_a_round_without_one_is_the_sum_of_the_others(missing: int) -> None:
    phones = Phones(context_of(CIRCLE))
    server = Server(phones)
    for shard in CIRCLE:
        if shard != missing:
            server.arrive(shard)
    server.run()
    assert server.circle.phase is CirclePhase.SUMMED
    assert server.opened is not None
    assert server.opened.residues.tolist() == sum_of(phones.updates[shard] for shard in CIRCLE if shard != missing)
    assert [list_.final for list_ in server.circle.lists] == [False, True]
    assert not server.expiries


def test_a_phone_lost_after_its_upload_is_waited_for_by_nobody() -> None:
    phones = Phones(context_of(CIRCLE))
    server = Server(phones, lambda shard, list_: shard != 7)
    for shard in CIRCLE:
        server.arrive(shard)
    assert server.circle.phase is CirclePhase.SUMMED
    assert server.opened is not None
    assert server.opened.residues.tolist() == sum_of(phones.updates.values())


def test_a_circle_of_too_few_fails_and_nobody_of_it_is_spent() -> None:
    phones = Phones(context_of(CIRCLE))
    server = Server(phones)
    for shard in CIRCLE[:3]:
        server.arrive(shard)
    server.run()
    assert server.circle.phase is CirclePhase.FAILED
    assert not server.circle.spent
    assert not server.answers
