"""What a phone may tell: each sentence that refuses, and that the same question gets the same answer."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.errors import SecrecyError
from featherfed.secure.told import Survivors, Told, from_bits, pinned, to_bits

MEMBERS = (4, 1, 7, 2, 9)
TOLD = Told(round_number=3, attempt=1, digest=bytes(32), own_seed=bytes(16), upload=b"sent")
FIRST = Survivors(1, False, frozenset({4, 1, 7, 2}), frozenset({9}))
FINAL = Survivors(2, True, frozenset({4, 1, 7, 2}), frozenset({1, 7}))


def heard(*lists: Survivors) -> Told:
    told = TOLD
    for list_ in lists:
        told = told.hear(list_, shard=4, members=MEMBERS, least=3)
    return told


def test_a_list_heard_again_changes_nothing() -> None:
    told = heard(FIRST, FINAL)
    assert heard(FIRST, FINAL, FIRST, FINAL) == told
    assert told.final and not TOLD.final


@pytest.mark.parametrize("lists", [(2, 3), (3, 2)])
def test_another_final_list_may_ask_for_more_of_the_same_survivors(lists: tuple[int, int]) -> None:
    first, second = (replace(FINAL, version=version, asked=frozenset({version})) for version in lists)
    with_one = replace(first, asked=frozenset({1}))
    assert len(heard(FIRST, with_one, replace(second, asked=frozenset({2}))).heard) == 3


@pytest.mark.parametrize(
    ("before", "new", "sentence"),
    [
        ((), replace(FIRST, alive=frozenset({1, 7, 2})), "list 1 of .* does not have shard 4, which is asked"),
        ((), replace(FIRST, alive=frozenset({4, 1})), "list 1 of .* has 2 survivors of at least 3"),
        ((), replace(FIRST, alive=frozenset({4, 1, 7, 8})), r"has shards \[8\] that were gone in list 0"),
        ((), replace(FIRST, asked=frozenset({9, 1})), r"is not final, and asks for shares of \[1\]"),
        ((), replace(FIRST, asked=frozenset({8})), r"asks shard 4 for secrets of \[8\]"),
        ((), replace(FINAL, asked=frozenset({4})), "asks shard 4 for secrets of"),
        ((FIRST,), replace(FIRST, alive=frozenset({4, 1, 7})), "list 1 .* says another thing than before"),
        ((FIRST,), replace(FIRST, version=2, alive=frozenset(MEMBERS)), r"has shards \[9\] that were gone in list 1"),
        ((FIRST, FINAL), replace(FINAL, version=3, alive=frozenset({4, 1, 7})), "contradicts the final list 2"),
        ((FIRST, FINAL), replace(FIRST, version=3), "contradicts the final list 2"),
        ((replace(FIRST, version=2),), FIRST, "list 1 of .* comes after list 2"),
        ((FINAL,), FIRST, "list 1 of .* contradicts the final list 2"),
    ],
)
def test_what_a_phone_must_not_answer(before: tuple[Survivors, ...], new: Survivors, sentence: str) -> None:
    told = heard(*before)
    with pytest.raises(SecrecyError, match=sentence):
        told.hear(new, shard=4, members=MEMBERS, least=3)


def test_a_list_before_the_upload_is_refused() -> None:
    with pytest.raises(SecrecyError, match="a list of attempt 1 of round 3 came before the upload"):
        replace(TOLD, upload=b"").hear(FIRST, shard=4, members=MEMBERS, least=3)


@pytest.mark.parametrize("position", [(3, 1), (3, 0), (2, 7)])
def test_an_attempt_does_not_come_back(position: tuple[int, int]) -> None:
    with pytest.raises(SecrecyError, match="was over for this phone, which has come to attempt 1 of round 3"):
        TOLD.check_next(position)


def test_a_round_is_over_for_whoever_was_in_a_final_list() -> None:
    heard(FIRST).check_next((3, 2))
    heard(FIRST, FINAL).check_next((4, 0))
    with pytest.raises(SecrecyError, match="was in a final list of round 3, and sends nothing more in it"):
        heard(FIRST, FINAL).forgotten().check_next((3, 2))


def test_what_is_stored_is_what_comes_back() -> None:
    told = heard(FIRST, FINAL)
    assert Told.from_bytes(told.to_bytes()) == told
    gone = told.forgotten()
    assert gone.final and not gone.own_seed
    assert Told.from_bytes(gone.to_bytes()) == gone


@given(members=st.lists(st.integers(0, 1000), min_size=1, max_size=40, unique=True), data=st.data())
def test_bits_name_the_members(members: list[int], data: st.DataObject) -> None:
    shards = data.draw(st.sets(st.sampled_from(members)))
    bits = to_bits(members, shards)
    assert len(bits) == -(-len(members) // 8)
    assert from_bits(members, bits) == shards


@pytest.mark.parametrize("bits", [b"", b"\x20", b"\x01\x00"])
def test_bits_of_nobody_are_refused(bits: bytes) -> None:
    with pytest.raises(SecrecyError, match="are no bits of 5 members"):
        from_bits(MEMBERS, bits)


def test_a_key_that_changes_within_a_run_is_refused() -> None:
    pins = pinned({}, (1, 2), (b"one", b"two"))
    assert pinned(pins, (2, 3), (b"two", b"three")) == {1: b"one", 2: b"two", 3: b"three"}
    with pytest.raises(SecrecyError, match="the key of shard 2 has changed within the run, from 74776f"):
        pinned(pins, (3, 2), (b"three", b"four"))


def test_lists_without_end_are_refused() -> None:
    told = heard(*(replace(FINAL, version=version) for version in range(1, 65)))
    with pytest.raises(SecrecyError, match="list 65 of attempt 1 of round 3 comes after 64 others"):
        told.hear(replace(FINAL, version=65), shard=4, members=MEMBERS, least=3)
