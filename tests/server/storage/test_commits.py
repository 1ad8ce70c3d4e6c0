import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from featherfed.errors import LocalError
from featherfed.server.storage.commits import Commits
from featherfed.server.storage.store import Statement, Store, put_phone, put_value


class WatchedStore(Store):
    """A real store that notes each transaction, and waits before it for the test's word."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.transactions: list[int] = []
        self.go = threading.Event()

    def apply(self, statements: Iterable[Statement]) -> None:
        assert self.go.wait(10)
        batch = list(statements)
        self.transactions.append(len(batch))
        super().apply(batch)


async def test_writes_that_come_during_a_transaction_share_the_next_one(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path / "run.sqlite")
    commits = Commits(store, list)
    first = asyncio.create_task(commits.write(put_value("first", "1")))
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(commits.write(put_phone(shard, f"phone-{shard}"))) for shard in range(50)]
    await asyncio.sleep(0.01)
    assert not first.done()
    store.go.set()
    await asyncio.gather(first, *later)
    assert store.transactions == [1, 50]
    assert len(store.phones()) == 50
    store.close()


async def test_write_returns_only_when_it_is_in_the_file(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path / "run.sqlite")
    store.go.set()
    commits = Commits(store, list)
    for number in range(5):
        await commits.write(put_value("number", str(number)))
        other = Store(tmp_path / "run.sqlite")
        assert other.values() == {"number": str(number)}
        other.close()
    store.close()


async def test_every_transaction_takes_the_ledger_along(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path / "run.sqlite")
    store.go.set()
    changes = [[put_value("changed", "once")], []]
    commits = Commits(store, lambda: changes.pop(0))
    await commits.write(put_value("a", "1"))
    await commits.write()
    assert store.values() == {"a": "1", "changed": "once"}
    assert changes == []
    store.close()


async def test_failed_transaction_is_told_to_all_who_share_it(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path / "run.sqlite")
    commits = Commits(store, list)
    first = asyncio.create_task(commits.write(put_value("first", "1")))
    await asyncio.sleep(0.01)
    # Two shards for one name: the database refuses the second, and with it the transaction.
    pair = [asyncio.create_task(commits.write(put_phone(shard, "same"))) for shard in (0, 1)]
    await asyncio.sleep(0.01)
    store.go.set()
    await first
    for outcome in await asyncio.gather(*pair, return_exceptions=True):
        assert isinstance(outcome, LocalError)
        assert "cannot write" in str(outcome)
    assert store.phones() == {}
    store.close()


async def test_who_stops_waiting_does_not_hold_up_the_others(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path / "run.sqlite")
    commits = Commits(store, list)
    impatient, patient = (asyncio.create_task(commits.write(put_value(key, "1"))) for key in "ab")
    await asyncio.sleep(0.01)
    impatient.cancel()
    store.go.set()
    await asyncio.wait_for(patient, 10)
    with pytest.raises(asyncio.CancelledError):
        await impatient
    store.close()
