"""Model check, breadth-first: the circle's machine and the phones' rule on a network that does what it likes.

A message that was sent may be delivered at any time, never, twice, or after later ones; phones may be silent, go and
come back; the server may be killed after each event. Phones are what their disk says: a killed one is the same again.
"""

from collections import deque
from collections.abc import Iterator
from itertools import combinations

import pytest

from featherfed.errors import SecrecyError
from featherfed.secure.told import Survivors, Told
from featherfed.server.rounds.circle import (
    Answered,
    Arrived,
    Back,
    Circle,
    CirclePhase,
    Expired,
    Gone,
    Opened,
    SentList,
    UploadsOver,
)
from featherfed.server.rounds.circle_machine import advance, resumed

State = tuple[Circle, tuple[Told, ...]]
BEGUN = Told(round_number=1, attempt=0, digest=b"", own_seed=b"", upload=b"sent")


def hear(circle: Circle, told: Told, shard: int, list_: SentList) -> Told:
    heard = Survivors(list_.version, list_.final, list_.alive, list_.asked_of(shard))
    return told.hear(heard, shard=shard, members=circle.members, least=circle.least)


def killed(circle: Circle) -> Circle:
    restored = Circle.restored(
        members=circle.members, threshold=circle.threshold, least=circle.least, spare=circle.spare,
        arrived=circle.arrived, lists=circle.lists, answered=circle.answered,
        ended=circle.phase if circle.over else None,
    )  # fmt: skip
    return resumed(restored)[0]


def following(state: State, away: int) -> Iterator[State]:
    """Yield what may come next, with at most so many phones known to be away."""
    circle, phones = state
    for shard in circle.members:
        if circle.phase is CirclePhase.ARRIVING and shard not in circle.arrived:
            yield advance(circle, Arrived(shard))[0], phones
        if shard in circle.lost:
            yield advance(circle, Back(shard))[0], phones
        elif len(circle.lost) < away:
            yield advance(circle, Gone(shard))[0], phones
        for list_ in circle.lists:
            if shard not in list_.recipients:
                continue
            try:
                told = hear(circle, phones[shard], shard, list_)
            except SecrecyError:
                # The server is honest: nothing of it is refused but what came after a later list.
                assert any(other.version > list_.version for other in phones[shard].heard)
                continue
            yield circle, (*phones[:shard], told, *phones[shard + 1 :])
        for heard in phones[shard].heard:
            yield advance(circle, Answered(shard, heard.version))[0], phones
    yield advance(circle, UploadsOver())[0], phones
    if circle.lists:
        yield advance(circle, Expired(circle.lists[-1].version))[0], phones
    if circle.opening:
        yield advance(circle, Opened())[0], phones
    yield killed(circle), phones


def check(state: State) -> None:
    """What must hold in every state."""
    circle, phones = state
    seeds = {(i, of) for i, told in enumerate(phones) for list_ in told.heard for of in list_.asked - list_.alive}
    shares = {(i, of) for i, told in enumerate(phones) for list_ in told.heard for of in list_.asked & list_.alive}
    assert not {of for _, of in seeds} & {of for _, of in shares}, "both kinds of secret of one phone were told"
    assert circle.told <= seeds | shares
    assert len({list_.alive for list_ in circle.lists if list_.final}) <= 1, "two final lists with other survivors"
    for earlier, later in zip(circle.lists, circle.lists[1:], strict=False):
        assert later.alive <= earlier.alive and (later.final or not earlier.final)
    if circle.opening or circle.phase is CirclePhase.SUMMED:
        assert circle.lists[-1].final
        assert len(circle.survivors) >= circle.least
        assert circle.survivors <= circle.arrived
        assert all((i, of) in circle.told for i in circle.survivors for of in circle.gone)
        assert all(sum(of == j for _, of in circle.told) >= circle.threshold for j in circle.survivors)
    if circle.phase is CirclePhase.FAILED and not circle.lists:
        assert not shares and not seeds


def fair(state: State, live: frozenset[int]) -> State:
    """Return the next state where all messages of live phones arrive, and deadlines come when nothing else does."""
    circle, phones = state
    if circle.opening:
        return advance(circle, Opened())[0], phones
    if live & circle.lost:
        return advance(circle, Back(min(live & circle.lost)))[0], phones
    if circle.phase is CirclePhase.ARRIVING:
        to_come = sorted(live - circle.arrived)
        return advance(circle, Arrived(to_come[0]) if to_come else UploadsOver())[0], phones
    for list_ in circle.lists:
        for shard in sorted(circle.waiting & live):
            if shard in list_.recipients and list_ in circle.current and (shard, list_.version) not in circle.answered:
                # What still matters is never refused.
                told = hear(circle, phones[shard], shard, list_)
                phones = (*phones[:shard], told, *phones[shard + 1 :])
                return advance(circle, Answered(shard, list_.version))[0], phones
    return advance(circle, Expired(circle.lists[-1].version))[0], phones


def ends(state: State, live: frozenset[int], known: dict[tuple[State, frozenset[int]], CirclePhase]) -> CirclePhase:
    """Return how a circle ends whose phones in `live` live and whose others say nothing more."""
    path = []
    while not state[0].over and (state, live) not in known:
        path.append((state, live))
        state = fair(state, live)
        assert len(path) < 60, "nobody comes to an end"
    end = state[0].phase if state[0].over else known[state, live]
    known.update(dict.fromkeys(path, end))
    return end


def explored(
    members: int, threshold: int, away: int, *, most: int | None = None, every: int = 1
) -> tuple[int, set[CirclePhase]]:
    """Check all states, or the first so many, and return how many there were and which phases.

    From one state of `every` on it is played out to its end, for each set of phones that live.
    """
    circle = Circle(members=tuple(range(members)), threshold=threshold, least=threshold + 1, spare=0)
    first: State = (circle, (BEGUN,) * members)
    seen, queue = {first}, deque([first])
    known: dict[tuple[State, frozenset[int]], CirclePhase] = {}
    subsets = [frozenset(c) for size in range(members + 1) for c in combinations(circle.members, size)]
    phases, number = set(), 0
    while queue:
        state = queue.popleft()
        check(state)
        phases.add(state[0].phase)
        number += 1
        if not state[0].over and number % every == 0:
            for live in subsets:
                end = ends(state, live, known)
                # Those who live and are still in it are enough for a sum.
                left = live & state[0].survivors if state[0].lists else live
                if len(left) >= state[0].least:
                    assert end is CirclePhase.SUMMED
        for new in following(state, away):
            if new not in seen and (most is None or len(seen) < most):
                seen.add(new)
                queue.append(new)
    return len(seen), phases


@pytest.mark.parametrize(("members", "threshold", "away", "states"), [(3, 1, 0, 2113), (3, 2, 3, 418), (4, 3, 1, 824)])
def test_whatever_comes_in_whatever_order(members: int, threshold: int, away: int, states: int) -> None:
    # Where all are needed nobody mends a sum.
    never = {CirclePhase.MENDING} if threshold + 1 == members else set()
    assert explored(members, threshold, away) == (states, set(CirclePhase) - never)


@pytest.mark.parametrize(("members", "threshold", "away"), [(3, 1, 1), (4, 2, 1)])
def test_the_first_states_of_larger_circles(members: int, threshold: int, away: int) -> None:
    """All of them take minutes: `python -m tests.secure.test_model_check` (figures in docs/PRIVACY.md)."""
    assert explored(members, threshold, away, most=2000)[0] == 2000


if __name__ == "__main__":
    for case in ((3, 1, 1), (4, 2, 0)):
        print(case, *explored(*case, every=50), flush=True)
