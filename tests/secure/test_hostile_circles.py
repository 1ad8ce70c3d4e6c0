"""Circles and lists of any kind: a phone answers or refuses with a sentence, and its answers stay within the rule."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.errors import SecrecyError
from featherfed.secure.circles import threshold_of
from featherfed.secure.context import Context
from featherfed.secure.keys import new_own_seed
from featherfed.secure.member import Member
from tests.secure.rounds import context_of, key_of, update_of

SHARDS = st.integers(0, 8)
COUNTS = st.integers(0, 1 << 53)
LISTS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.frozensets(SHARDS), st.frozensets(SHARDS)), max_size=8)
KEYS = st.one_of(st.binary(max_size=40), st.integers(0, 8).map(lambda shard: key_of(shard).public), st.just(bytes(32)))


@given(
    members=st.lists(SHARDS, max_size=9), keys=st.lists(KEYS, max_size=9), threshold=st.integers(-1, 6),
    least=st.integers(-1, 10), bits=st.integers(0, 20), counts=st.tuples(COUNTS, COUNTS, COUNTS),
    clip=st.floats(), text=st.text(max_size=9), floor=st.integers(0, 9),
)  # fmt: skip
def test_any_circle_is_begun_or_refused(
    members: list[int], keys: list[bytes], threshold: int, least: int, bits: int, counts: tuple[int, int, int],
    clip: float, text: str, floor: int,
) -> None:  # fmt: skip
    try:
        context = Context(
            run=text, round_number=counts[0], attempt=counts[1], circle=counts[2], threshold=threshold, least=least,
            uplink=text, bits=bits, steps=b"", clip=clip, model=b"", members=tuple(members), keys=tuple(keys),
        )  # fmt: skip
        member = Member.begin(key_of(3), new_own_seed(), context, 3, least_circle=floor)
        member.mask(1, update_of(3, bits=context.bits))
    except SecrecyError as error:
        assert str(error)
    else:
        assert len(members) >= max(3, floor)
        assert context.threshold >= threshold_of(len(members))


@settings(max_examples=300)
@given(lists=LISTS, killed=st.sets(st.integers(0, 8)))
def test_any_lists_get_answers_within_the_rule(lists: list[Any], killed: set[int]) -> None:
    context = context_of((3, 1, 8, 0, 5))
    member = Member.begin(key_of(3), new_own_seed(), context, 3)
    member.mask(1, update_of(3))
    seeds: set[int] = set()
    shares: set[int] = set()
    for number, (version, final, alive, asked) in enumerate(lists):
        if number in killed:
            member = Member(key_of(3), context, 3, type(member.told).from_bytes(member.told.to_bytes()))
        try:
            data = member.answer(version, final, alive, asked)
        except SecrecyError as error:
            assert str(error)
            continue
        assert len(data) == 16 * len(asked)
        assert 3 in alive and len(alive) >= context.least
        seeds |= asked - alive
        shares |= asked & alive
        assert not shares or final
        assert not seeds & shares
        assert len(seeds) <= len(context.members) - context.least
