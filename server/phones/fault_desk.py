"""Where faults of phones are booked: told to who watches, and kept where there have not been too many."""

from featherfed.server.phones.faultbook import FaultBook
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import Statement, put_fault
from featherfed.server.watchers.watcher import Watcher


class FaultDesk:
    """Books faults in the round that is played."""

    def __init__(self, storage: RunStorage, watcher: Watcher) -> None:
        self._book = FaultBook()
        self._storage = storage
        self._watcher = watcher

    def book(self, shard: int, name: str, code: int, sentence: str, *, round_number: int) -> list[Statement]:
        """Tell who watches of a fault; return what keeps it, where there have not been too many."""
        kept = self._book.note(shard, sentence)
        if kept is None:
            return []
        self._watcher.fault(name, code, kept)
        return [put_fault(self._storage.clock_s, round_number, name, code, kept)]
