"""A server that tells each phone what it likes: what it can open by any lists, and by any attempts at a round.

Phones are `Told` alone, the rule by which they answer. What a server learns of an attempt is worked out from all that
was told: the seeds of pairs, the shares of own seeds; colluding phones tell it all that they know.
"""

import random
from collections import deque
from fractions import Fraction
from itertools import combinations, product

import pytest

from featherfed.errors import SecrecyError
from featherfed.secure.circles import threshold_of
from featherfed.secure.told import Survivors, Told

Said = tuple[frozenset[int], frozenset[int]]
"""Of one phone and attempt: of whom it told the seeds, and of whom the shares."""


def all_that_a_phone_may_say(shard: int, members: tuple[int, ...], least: int) -> set[Said]:
    """Return what all sequences of up to three lists make a phone say, each time all that it may be asked."""
    others = [other for other in members if other != shard]
    alive = [frozenset({shard, *some}) for size in range(len(members)) for some in combinations(others, size)]
    lists = [
        Survivors(version, final, left, frozenset(others) if final else frozenset(others) - left)
        for version in (1, 2, 3) for final in (False, True) for left in alive
    ]  # fmt: skip
    first = Told(round_number=1, attempt=0, digest=b"", own_seed=b"", upload=b"sent")
    seen, queue = {first}, deque([first])
    while queue:
        told = queue.popleft()
        for list_ in lists:
            try:
                new = told.hear(list_, shard=shard, members=members, least=least)
            except SecrecyError:
                continue
            if new not in seen:
                seen.add(new)
                queue.append(new)
    return {said(told) for told in seen}


def said(told: Told) -> Said:
    seeds = frozenset(of for list_ in told.heard for of in list_.asked - list_.alive)
    return seeds, frozenset(of for list_ in told.heard for of in list_.asked & list_.alive)


def most(sayings: set[Said]) -> list[Said]:
    """Return those of which no other says more."""
    return [
        one for one in sayings
        if not any(one != other and one[0] <= other[0] and one[1] <= other[1] for other in sayings)
    ]  # fmt: skip


def opened_sums(heard: dict[int, Said], colluding: frozenset[int], threshold: int) -> list[frozenset[int]]:
    """Return the sets of honest phones whose sums a server can compute: all own seeds there, and tied to no other."""
    honest = set(heard) - colluding
    groups, left = [], set(honest)
    while left:
        group, edge = set(), [left.pop()]
        while edge:
            one = edge.pop()
            group.add(one)
            tied = {j for j in left if j not in heard[one][0] and one not in heard[j][0]}
            left -= tied
            edge += tied
        groups.append(group)
    open_ = {
        j for j in honest
        if len(colluding) + sum(j in heard[i][1] for i in honest - {j}) >= threshold
    }  # fmt: skip
    return [frozenset(group) for group in groups if group <= open_]


@pytest.mark.parametrize("members", [3, 4, 5])
def test_no_phone_ever_says_both_of_one(members: int) -> None:
    circle = tuple(range(members))
    for least in range(2, members + 1):
        for seeds, shares in all_that_a_phone_may_say(0, circle, least):
            assert not seeds & shares
            assert len(seeds) <= members - least
            if shares:
                assert shares | seeds == set(circle) - {0}


@pytest.mark.parametrize(("members", "threshold"), [(3, 2), (4, 2), (4, 3), (5, 3), (5, 4), (6, 4)])
def test_a_sum_that_opens_has_as_many_honest_phones_as_promised(members: int, threshold: int) -> None:
    """All lists to all phones, all numbers of colluders below the threshold: 2t − k − c + 1 honest phones."""
    circle, neighbours = tuple(range(members)), members - 1
    sayings = {shard: most(all_that_a_phone_may_say(shard, circle, threshold + 1)) for shard in circle}
    for colluders in range(threshold):
        # All phones have the same choices: which of them collude does not matter.
        colluding = frozenset(range(colluders))
        honest = [shard for shard in circle if shard not in colluding]
        smallest = members
        for choice in product(*(sayings[shard] for shard in honest)):
            heard = dict(zip(honest, choice, strict=True)) | dict.fromkeys(colluding, (frozenset(), frozenset()))
            smallest = min(smallest, *map(len, opened_sums(heard, colluding, threshold)), members)
        assert smallest >= 2 * threshold - neighbours - colluders + 1


def test_no_attempts_at_a_round_give_the_update_of_one_phone() -> None:
    """Random lies over up to four attempts, all phones honest: no combination of the sums is one phone's update."""
    single, smaller = 0, 0
    for seed in range(1500):
        sums = sums_of_a_round(random.Random(seed), obeyed=True)
        assert not isolated(sums), sums
        single += isolated(sums_of_a_round(random.Random(seed), obeyed=False))
        smaller += any(len(one) < 5 for one in sums)
    # The same lies told to phones that forget that they were in a final list.
    assert single > 100
    assert smaller > 100


def sums_of_a_round(draw: random.Random, *, obeyed: bool) -> list[frozenset[int]]:
    """Return the sums of honest phones' updates that some lies in up to four attempts at one round open."""
    phones: dict[int, Told | None] = dict.fromkeys(range(7))
    size, sums = 5, []
    threshold = threshold_of(size)
    for attempt in range(4):
        may = []
        for shard, told in phones.items():
            try:
                if told is not None and obeyed:
                    told.check_next((1, attempt))
            except SecrecyError:
                continue
            may.append(shard)
        if len(may) < size:
            break
        circle = tuple(draw.sample(may, size) if draw.random() < 0.5 else may[:size])
        common = frozenset(circle) - ({draw.choice(circle)} if draw.random() < 0.5 else set())
        heard: dict[int, Said] = {}
        for shard in circle:
            told = Told(round_number=1, attempt=attempt, digest=b"", own_seed=b"", upload=b"sent")
            others = [other for other in circle if other != shard]
            for version in (1, 2):
                final = draw.random() < 0.8
                alive = common if draw.random() < 0.8 else frozenset(circle) - {draw.choice(others)}
                asked = frozenset(others) if final else frozenset(others) - alive
                try:
                    list_ = Survivors(version, final, alive, asked)
                    told = told.hear(list_, shard=shard, members=circle, least=threshold + 1)
                except SecrecyError:
                    continue
            phones[shard], heard[shard] = told, said(told)
        sums += opened_sums(heard, frozenset(), threshold)
    return sums


def isolated(sums: list[frozenset[int]]) -> bool:
    """Whether some combination of sums is the update of one phone: a row of one number, after elimination."""
    rows = [[Fraction(shard in one) for shard in range(7)] for one in sums]
    solved = 0
    for column in range(7):
        pivot = next((row for row in range(solved, len(rows)) if rows[row][column]), None)
        if pivot is None:
            continue
        rows[solved], rows[pivot] = rows[pivot], rows[solved]
        lead = rows[solved]
        for row in range(len(rows)):
            if row != solved and rows[row][column]:
                factor = rows[row][column] / lead[column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], lead, strict=True)]
        solved += 1
    # In reduced form a unit vector is in the span exactly if it is one of the rows.
    return any(sum(value != 0 for value in row) == 1 for row in rows)
