"""The short way of an update that comes as one message, as nearly all do: from the socket to `Folding` and back.

It is taken where the socket brings it, and answered where its batch is durable: no task wakes for it. What happens to
it is what `Receiver` does, and all that is unusual is left to that one: an update that does not count or is on its way
already, one that breaks a limit, a phone that is sending another in chunks, a connection without room for the answer.
"""

import asyncio
from dataclasses import dataclass
from functools import partial

from featherfed.server.model.run_model import RunModel
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.folding import Folding, WholeUpdate
from featherfed.server.rounds.pacing import Pacing
from featherfed.server.rounds.receiving import Receiver
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.store import StoredUpdate
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire import messages
from featherfed.wire.messages import Accepted, pack


class ShortWay:
    """Takes updates of one message, each under the turn of its upload."""

    def __init__(
        self,
        current: CurrentRound,
        model: RunModel,
        uploads: UploadRegister,
        folding: Folding,
        receiver: Receiver,
        watcher: Watcher,
        pacing: Pacing,
    ) -> None:
        self._current = current
        self._limits = model.sum
        self._uploads = uploads
        self._folding = folding
        self._receiver = receiver
        self._watcher = watcher
        self._pacing = pacing
        self._accepted = Accepted(0)
        self._packed = b""

    def takes(self, phone: PhoneConnection, update: messages.WholeUpdate) -> bool:
        """Whether an update is new, counts as far as that can be said now, and may be answered."""
        current, limits = self._current, self._limits
        key = (update.round, phone.shard)
        return (
            current.state.wants(*key)
            and current.state.takes(update.attempt)
            and current.answers_now
            and self._uploads.get(key) is None
            and len(update.data) <= limits.max_update_bytes.at(update.round)
            and update.examples <= limits.max_examples
            and self._uploads.turns.free(key)
            and not self._receiver.is_sending(phone)
        )

    def take(self, phone: PhoneConnection, update: messages.WholeUpdate, counted: Traffic) -> None:
        """Have an update folded."""
        key, size = (update.round, phone.shard), len(update.data)
        self._uploads.turns.take(key)
        try:
            examples = update.examples or self._limits.max_examples
            upload = self._uploads.begin(key, StoredUpdate(*key, "receiving", size, b"", examples))
            counted.theory += self._limits.theory_bytes.at(update.round)
            self._watcher.upload_advanced(phone.shard, update.round, 0, size)
            self._folding.take(SingleUpdate(key, upload, update.data, b"", examples, phone, self))
        except BaseException:
            self._uploads.turns.give_back(key)
            raise

    def accept(self, update: "SingleUpdate") -> bool:
        """Tell a phone that its update counts; return False where its connection does not take that at once."""
        phone, (round_number, _) = update.phone, update.key
        if round_number != self._accepted.round or not self._packed:
            self._accepted = Accepted(round_number)
            self._packed = pack(self._accepted)
        if not phone.send_at_once(self._accepted, self._packed):
            return False
        phone.forgets(round_number)
        self._pacing.release(phone, self._current.state)
        # Last: whatever fails before leaves the turn, and the phone, to its task.
        self._uploads.turns.give_back(update.key)
        phone.go_on()
        return True

    def conclude(self, update: "SingleUpdate", counted: "asyncio.Future[bool]") -> None:
        """Leave the rest to the phone's task."""
        update.phone.go_on_after(partial(self._receiver.conclude, update.phone, update, counted))


@dataclass(slots=True, eq=False)
class SingleUpdate(WholeUpdate):
    """One that came as one message."""

    phone: PhoneConnection
    way: ShortWay

    def answer(self, counts: bool) -> None:
        """Have the phone told."""
        if not (counts and self.way.accept(self)):
            counted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            counted.set_result(counts)
            self.way.conclude(self, counted)

    def fail(self, error: BaseException) -> None:
        """Have the error raised where the phone's messages are received."""
        counted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        counted.set_exception(error)
        counted.exception()  # seen, also where the phone's task is gone
        self.way.conclude(self, counted)
