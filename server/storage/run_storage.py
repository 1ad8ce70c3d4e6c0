"""What of a run survives `kill -9`, and how it is written while the run is served."""

from featherfed.server.run_clock import RunClock
from featherfed.server.run_tasks import RunTasks
from featherfed.server.storage.commits import Commits
from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.payloads import Payloads, StoredPayloads
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Statement, Store, put_traffic, put_value


class RunStorage:
    """The run's folder, its database (`store` reads, `commits` writes), and the byte ledger.

    Each transaction takes the ledger's changes and the clock along. One that fails ends the run.
    """

    def __init__(
        self, folder: RunFolder, store: Store, clock: RunClock, tasks: RunTasks, payloads: Payloads | None = None
    ) -> None:
        """`payloads` holds the bytes of updates under way; the database, unless told."""
        self.folder = folder
        self.store = store
        self.payloads: Payloads = payloads or StoredPayloads(store)
        self.ledger = Ledger(store.traffic())
        self.commits = Commits(store, self._ledger_changes, tasks.end)
        self._clock = clock

    @property
    def clock_s(self) -> float:
        """The seconds that the run has been served, pauses left out."""
        return self._clock.now_s()

    def _ledger_changes(self) -> list[Statement]:
        clock = put_value("clock_s", f"{self._clock.now_s():.3f}")
        return [clock, *put_traffic(self.ledger.take_changed())]
