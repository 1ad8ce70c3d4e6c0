import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.server.phones.admission import NoShardError, allot
from featherfed.wire.closing import Close
from featherfed.wire.messages import NOTHING, PROTOCOL_VERSION, Hello


def hello(name: str, shard: int = NOTHING, shards: int = 0) -> Hello:
    return Hello(PROTOCOL_VERSION, name, shard, shards)


def test_phone_that_does_not_ask_gets_the_lowest_free_shard() -> None:
    assert allot(hello("c"), shards=3, held={0: "a", 2: "b"}, away=set()) == 1


def test_phone_that_comes_back_gets_its_own_shard_even_while_others_are_free() -> None:
    assert allot(hello("b"), shards=3, held={2: "b"}, away={2}) == 2


def test_shard_of_a_phone_that_is_away_is_given_only_when_none_is_free() -> None:
    held = {0: "a", 1: "b"}
    assert allot(hello("c"), shards=3, held=held, away={0}) == 2
    assert allot(hello("c"), shards=2, held=held, away={1}) == 1


@pytest.mark.parametrize(
    ("message", "away", "words"),
    [
        (hello("c"), set(), "all 2 shards are taken; the run was started with --phones 2"),
        (hello("a", 2, 2), set(), "shard 2/2 was asked for; this run has 2 shards, counted from 0"),
        (hello("a", 0, 3), set(), "shard 0/3 was asked for; this run has 2 shards"),
        (hello("c", 1, 2), set(), "shard 1 is played by phone 'b'; leave out --shard"),
        (hello("a", 1, 2), {1}, "phone 'a' plays shard 0 in this run, not 1"),
    ],
)
def test_refusal_says_which_shard_and_why(message: Hello, away: set[int], words: str) -> None:
    with pytest.raises(NoShardError, match=words) as refused:
        allot(message, shards=2, held={0: "a", 1: "b"}, away=away)
    assert refused.value.code == Close.NO_SHARD


def test_shard_that_was_asked_for_is_given_where_it_is_free_own_or_abandoned() -> None:
    for name, held, away in (("c", {0: "a"}, set()), ("b", {1: "b"}, set()), ("c", {1: "b"}, {1})):
        assert allot(hello(name, 1, 2), shards=2, held=held, away=away) == 1


def test_phone_gets_the_shard_that_it_had_if_it_can_and_another_if_not() -> None:
    for held, away, shard in (({}, set(), 2), ({2: "a"}, {2}, 2), ({2: "a"}, set(), 0), ({1: "c", 2: "a"}, {2}, 1)):
        assert allot(hello("c", 2), shards=3, held=held, away=away) == shard
    assert allot(hello("c", 7), shards=3, held={}, away=set()) == 0
    with pytest.raises(NoShardError, match="shard 2 is played at another gateway; this one has 0 to 1"):
        allot(hello("c", 2), shards=3, held={}, away=set(), here=range(2))


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(-1, 6), st.booleans()), max_size=20),
)
def test_no_present_phone_ever_loses_its_shard(shards: int, arrivals: list[tuple[str, int, bool]]) -> None:
    held: dict[int, str] = {}
    away: set[int] = set()
    for name, asked, leaves in arrivals:
        present = {shard: phone for shard, phone in held.items() if shard not in away and phone != name}
        try:
            shard = allot(hello(name, asked, shards if asked >= 0 else 0), shards=shards, held=held, away=away)
        except NoShardError:
            continue
        held[shard] = name
        away.discard(shard)
        assert 0 <= shard < shards
        assert present.items() <= held.items()
        assert list(held.values()).count(name) == 1
        if leaves:
            away.add(shard)
