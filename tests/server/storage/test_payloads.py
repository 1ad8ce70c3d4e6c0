"""Where updates' bytes are kept, and whether they are those that were announced."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from featherfed.server.storage.payloads import HeldPayloads, Payloads, StoredPayloads
from featherfed.server.storage.store import Store, StoredUpdate
from featherfed.wire.messages import digest_of

KEY = (3, 7)
UPDATE = bytes(range(200)) * 10
CUTS = [0, 700, 1500, len(UPDATE)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "run.sqlite", durable=False)
    yield made
    made.close()


def kept(payloads: Payloads, store: Store, update: bytes) -> bytes:
    """Keep all but the last piece of an update; return that."""
    *first, last = [(start, update[start:end]) for start, end in itertools.pairwise(CUTS)]
    for offset, data in first:
        store.apply(payloads.keep(KEY, offset, data))
    return last[1]


@pytest.mark.parametrize("where", ["database", "memory", "memory beside its phone", "memory beside another phone"])
def test_update_is_whole_where_it_has_the_digest_that_was_announced(store: Store, where: str) -> None:
    own = bytes(bytearray(UPDATE))
    known = {"memory beside its phone": own, "memory beside another phone": bytes(len(UPDATE))}.get(where)
    payloads = StoredPayloads(store) if where == "database" else HeldPayloads(lambda key, digest: known)
    last = kept(payloads, store, UPDATE)
    whole = payloads.whole(KEY, last, digest_of(UPDATE))
    assert whole == UPDATE
    # Where they are the phone's own, there is one copy of them.
    assert (whole is own) == (known is own)


@pytest.mark.parametrize("where", ["database", "memory", "memory beside its phone"])
@pytest.mark.parametrize("place", [0, 800, -1])
def test_update_with_another_byte_than_was_announced_is_none(store: Store, where: str, place: int) -> None:
    spoilt = bytearray(UPDATE)
    spoilt[place] ^= 1
    known = UPDATE if where == "memory beside its phone" else None
    payloads = StoredPayloads(store) if where == "database" else HeldPayloads(lambda key, digest: known)
    last = kept(payloads, store, bytes(spoilt))
    assert payloads.whole(KEY, last, digest_of(UPDATE)) is None
    assert payloads.whole(KEY, last + b"more", digest_of(UPDATE)) is None
    assert payloads.whole(KEY, b"", digest_of(UPDATE)) is None


def test_an_update_under_way_has_a_row_where_its_bytes_have_some(store: Store) -> None:
    update = StoredUpdate(*KEY, "receiving", len(UPDATE), digest_of(UPDATE), 10)
    assert HeldPayloads().begun(update) == []
    store.apply(StoredPayloads(store).begun(update))
    assert store.update(*KEY) == update
