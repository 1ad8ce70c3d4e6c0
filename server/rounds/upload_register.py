"""What is known of each update of the current round: how much of it is durable, and whether it counts.

An update is one (round, shard), whatever connections it comes over. In the ledger, for every round and phone:
payload = resent + wasted + what is durable or counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from featherfed.server.model.run_model import RunModel
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.machines import State
from featherfed.server.rounds.turns import Turns
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import Statement, StoredUpdate, drop_update, put_update

Key = tuple[int, int]
"""Round and shard."""


@dataclass(slots=True)
class Upload:
    """What is known of one update; `durable` bytes of it are on the disk, or in the queue for it."""

    update: StoredUpdate
    durable: int = 0
    sender: PhoneConnection | None = None
    """The connection on which its phone began it, or last asked about it."""

    @property
    def accepted(self) -> bool:
        """Whether the update counts."""
        return self.update.state == "accepted"

    @property
    def arrived(self) -> bool:
        """Whether all of it is here, and the sum of its circle is not open yet."""
        return self.update.state == "arrived"


class UploadRegister:
    """All uploads that are under way or count in the current round."""

    def __init__(self, model: RunModel, storage: RunStorage) -> None:
        self._model = model
        self._store, self._payloads = storage.store, storage.payloads
        self._ledger = storage.ledger
        self._uploads: dict[Key, Upload] = {}
        self.turns = Turns[Key]()
        """Under which an upload changes: it may come over several connections at once."""

    def restore(self, round_number: int, is_open: bool) -> None:
        """Fold again what the disk has of a round if it is open, and book what died with the server's memory."""
        kept: dict[int, int] = {}
        for update in self._store.updates():
            key = (update.round_number, update.shard)
            durable = update.size
            if update.state != "accepted" or (is_open and update.counts_in == round_number):
                payload = self._payloads.read(key)
                durable = len(payload)
                self._uploads[key] = Upload(update, durable)
                if update.state == "accepted" and self._model.sum.adds_at_once:
                    self._model.sum.add(*key, payload, update.examples)
            kept[update.shard] = kept.get(update.shard, 0) + durable
        for shard in self._ledger.shards():
            # It came, and was not durable when the server was killed: the phone sends it again.
            total = self._ledger.total("uplink", shard=shard)
            lost = total.payload - total.resent - total.wasted - kept.get(shard, 0)
            self._ledger.entry(round_number, shard, "uplink").resent += max(0, lost)

    def get(self, key: Key) -> Upload | None:
        """Return the upload of an update, if it has one."""
        return self._uploads.get(key)

    def begin(self, key: Key, update: StoredUpdate) -> Upload:
        """Note an update of which no byte is durable."""
        upload = self._uploads[key] = Upload(update)
        return upload

    def waste(self, key: Key) -> list[Statement]:
        """Forget an unfinished update and count its bytes as wasted; return what makes the disk forget it."""
        upload = self._uploads.get(key)
        if upload is None or upload.accepted:
            return []
        del self._uploads[key]
        self._payloads.forget([key])
        self._ledger.entry(self._model.sum.open_round, key[1], "uplink").wasted += upload.durable
        return drop_update(*key)

    def waste_unwanted(self, state: State) -> list[Statement]:
        """Waste what is unfinished and will not count: of stragglers, of phones that were refused, of a run's end."""
        unwanted = [key for key in self._uploads if not (state.wants(*key) or state.holds(*key))]
        return [statement for key in unwanted for statement in self.waste(key)]

    def discard(self, round_number: int) -> list[Statement]:
        """Waste what has come of a round and does not count: it was masked for an attempt that is over."""
        keys = [key for key in self._uploads if key[0] == round_number]
        return [statement for key in keys for statement in self.waste(key)]

    def count(self, round_number: int, shards: Iterable[int]) -> list[Statement]:
        """Note that the updates of these phones are in the sum of a round; return what keeps that."""
        statements = []
        for shard in shards:
            upload = self._uploads[round_number, shard]
            upload.update = upload.update.accepted(upload.update.digest, round_number)
            statements.append(put_update(upload.update))
        return statements

    def forget_round(self, round_number: int) -> None:
        """Forget the updates of a closed round: for late copies, the store remembers who was accepted."""
        over = [
            key
            for key, upload in self._uploads.items()
            if upload.accepted and (upload.update.counts_in or 0) <= round_number
        ]
        for key in over:
            del self._uploads[key]
        self._payloads.forget(over)
