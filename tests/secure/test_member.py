"""A phone's part: what it takes part in, one update a mask, answers that do not depend on restarts."""

from dataclasses import replace

import pytest

from featherfed.errors import SecrecyError
from featherfed.secure.keys import PhoneKey, new_own_seed
from featherfed.secure.member import Member
from featherfed.secure.told import Told
from tests.secure.rounds import context_of, key_of, update_of

CIRCLE = (11, 4, 7, 0, 9)
CONTEXT = context_of(CIRCLE)


def member_of(shard: int = 7) -> Member:
    return Member.begin(key_of(shard), new_own_seed(), CONTEXT, shard)


def test_the_same_update_is_the_same_upload_after_a_restart() -> None:
    member = member_of()
    head, word, residues = member.mask(1, update_of(7))
    again = Member(key_of(7), CONTEXT, 7, Told.from_bytes(member.told.to_bytes()))
    other_head, other_word, other = again.mask(1, update_of(7))
    assert (head, word, residues.tobytes()) == (other_head, other_word, other.tobytes())
    assert len(head) == CONTEXT.head_bytes == 8 + 16 * 2


def test_another_update_under_the_same_masks_is_refused() -> None:
    member = member_of()
    member.mask(1, update_of(7))
    again = Member(key_of(7), CONTEXT, 7, Told.from_bytes(member.told.to_bytes()))
    with pytest.raises(SecrecyError, match="has masked an update for attempt 0 of round 3, and this is another"):
        again.mask(1, update_of(8))


def test_answers_are_seeds_of_who_is_gone_and_shares_of_who_is_left() -> None:
    member, other = member_of(7), member_of(4)
    for phone in (member, other):
        phone.mask(1, update_of(0))
    alive = {11, 4, 7, 9}
    seed = member.answer(1, False, alive, {0})
    assert seed == Member.begin(key_of(0), new_own_seed(), CONTEXT, 0)._pair_seed(7)
    share = member.answer(2, True, alive, {4, 9})
    assert len(share) == 32
    assert share[:16] == member._share_of(4)
    again = Member(key_of(7), CONTEXT, 7, Told.from_bytes(member.told.to_bytes()))
    assert again.answer(1, False, alive, {0}) == seed
    assert again.answer(2, True, alive, {4, 9}) == share


def test_what_is_refused_tells_nothing_and_changes_nothing() -> None:
    member = member_of()
    member.mask(1, update_of(7))
    before = member.told
    with pytest.raises(SecrecyError):
        member.answer(1, False, {11, 4, 7, 9}, {0, 4})
    assert member.told == before


def test_an_attempt_with_another_context_than_before_is_refused() -> None:
    told = member_of().told
    other = replace(CONTEXT, model=b"another!")
    with pytest.raises(SecrecyError, match="attempt 0 of round 3 came to shard 7 with another model, members"):
        Member(key_of(7), other, 7, told)
    with pytest.raises(SecrecyError, match="attempt 0 of round 3 was over for this phone"):
        Member.begin(key_of(7), new_own_seed(), other, 7, before=told)
    Member.begin(key_of(7), new_own_seed(), replace(other, attempt=1), 7, before=told)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threshold": 2, "least": 4}, "2 shares would open an update in a circle of 5, which needs 3"),
        ({"members": (11, 4, 6, 0, 9)}, r"the circle \[11, 4, 6, 0, 9\] lacks shard 7 with the key of this phone"),
        (
            {"keys": (*CONTEXT.keys[:2], key_of(1).public, *CONTEXT.keys[3:])},
            "lacks shard 7 with the key of this phone",
        ),
    ],
)
def test_a_circle_that_protects_too_little_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(SecrecyError, match=sentence):
        Member.begin(key_of(7), new_own_seed(), replace(CONTEXT, **changes), 7)  # type: ignore[arg-type]


def test_a_circle_without_masks_is_refused() -> None:
    """A server may call a run masked and ask for an update in the clear."""
    with pytest.raises(SecrecyError, match="a circle without masks, in a run that said that its updates are masked"):
        Member.begin(key_of(7), new_own_seed(), context_of(CIRCLE, threshold=0, keys=()), 7)


def test_a_circle_that_is_too_large_is_refused() -> None:
    with pytest.raises(SecrecyError, match="a circle of 129 is above 128"):
        Member.begin(key_of(7), new_own_seed(), context_of(range(129)), 7)


def test_a_circle_below_the_phones_own_floor_is_refused() -> None:
    with pytest.raises(SecrecyError, match="a circle of 5 is below the 6 of --least-circle"):
        Member.begin(key_of(7), new_own_seed(), CONTEXT, 7, least_circle=6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"members": (11, 4, 4, 0, 9)}, "names a shard twice"),
        ({"keys": CONTEXT.keys[:4]}, "a circle of 5 needs as many keys of 32 bytes"),
        ({"keys": (CONTEXT.keys[1], *CONTEXT.keys[1:])}, "two shards of the circle .* have one key"),
        ({"least": 3}, "3 shares and 3 survivors do not fit a circle of 5"),
        ({"bits": 17}, "residues of 17 bits cannot be masked, only of 2 to 16"),
    ],
)
def test_a_context_that_fits_no_circle_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(SecrecyError, match=sentence):
        replace(CONTEXT, **changes)  # type: ignore[arg-type]


def test_a_key_in_common_is_computed_once() -> None:
    key = PhoneKey.new()
    assert key.shared(key_of(1).public) is key.shared(key_of(1).public)
    assert PhoneKey(key.private).public == key.public
