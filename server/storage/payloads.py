"""Where the bytes of updates under way are: in the run's database, or in memory where nothing is to survive.

A server that may be killed keeps every byte that it acknowledges. In virtual time it cannot be killed without its
phones, and a run that ends there is never resumed: its updates stay where they are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from featherfed.server.storage.store import Statement, Store, StoredUpdate, put_chunk, put_chunks, put_update
from featherfed.wire.messages import digest_of
from featherfed.wire.pieces import Pieces

Key = tuple[int, int]
"""Round and shard."""
Part = tuple[Key, int, bytes]
"""Some bytes of an update, and where they lie in it."""


class Payloads(Protocol):
    """Keeps the bytes of updates until their round is closed."""

    def begun(self, update: StoredUpdate) -> list[Statement]:
        """Return what keeps that an update is under way."""

    def keep(self, key: Key, offset: int, data: bytes) -> list[Statement]:
        """Keep some bytes of an update; return what makes them durable."""

    def keep_folded(self, parts: Sequence[Part]) -> list[Statement]:
        """Keep the last bytes of updates that are in the open sum; return what makes them durable."""

    def read(self, key: Key) -> bytes:
        """Return what is kept of an update."""

    def whole(self, key: Key, last: bytes, digest: bytes) -> bytes | None:
        """Return an update, of which `last` is not kept yet; None where it has another digest."""

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget updates that are in the model, or wasted: the database has heard of it in their transaction."""


class StoredPayloads:
    """In the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begun(self, update: StoredUpdate) -> list[Statement]:
        """Return its row: a server that comes back goes on with the bytes that belong to it."""
        return [put_update(update)]

    def keep(self, key: Key, offset: int, data: bytes) -> list[Statement]:
        """Return the row."""
        return [put_chunk(*key, offset, data)]

    def keep_folded(self, parts: Sequence[Part]) -> list[Statement]:
        """Return their rows: a server that comes back makes its open sum of these bytes again."""
        return [put_chunks([(*key, offset, data) for key, offset, data in parts])]

    def read(self, key: Key) -> bytes:
        """Read the rows."""
        return self._store.payload(*key)

    def whole(self, key: Key, last: bytes, digest: bytes) -> bytes | None:
        """Read the rows, and take the digest."""
        return _of_digest(self._store.payload(*key) + last, digest)

    def forget(self, keys: Iterable[Key]) -> None:
        """Do nothing: rows go with `drop_chunks` and `drop_update`."""


Announced = Callable[[Key, bytes], bytes | None]
"""Gives an update as its phone has it, where it announced this digest and is in this process."""


class HeldPayloads:
    """In memory, as they came: nothing is copied before the update is whole."""

    def __init__(self, announced: Announced = lambda key, digest: None) -> None:
        """`announced` are the updates of phones in this process: what is compared with one needs no digest."""
        self._announced = announced
        self._held: dict[Key, Pieces] = {}

    def begun(self, update: StoredUpdate) -> list[Statement]:
        """Return nothing: the update would be without its bytes. It has its row once it counts."""
        return []

    def keep(self, key: Key, offset: int, data: bytes) -> list[Statement]:
        """Hold the bytes."""
        self._held.setdefault(key, Pieces()).put(offset, data)
        return []

    def keep_folded(self, parts: Sequence[Part]) -> list[Statement]:
        """Let the updates go: nobody will make the sum again."""
        self.forget(key for key, _, _ in parts)
        return []

    def read(self, key: Key) -> bytes:
        """Join the bytes."""
        return bytes(self._held.get(key, Pieces()))

    def whole(self, key: Key, last: bytes, digest: bytes) -> bytes | None:
        """Return the phone's own bytes where they are these: a comparison takes a tenth of a digest's time."""
        held, known = self._held.get(key, Pieces()), self._announced(key, digest)
        if known is not None and known.endswith(last) and held.same_as(known, len(known) - len(last)):
            return known
        return _of_digest(bytes(held) + last, digest)

    def forget(self, keys: Iterable[Key]) -> None:
        """Let the bytes go."""
        for key in keys:
            self._held.pop(key, None)


def _of_digest(payload: bytes, digest: bytes) -> bytes | None:
    return payload if digest_of(payload) == digest else None
