"""Updates on their way in: byte by byte to the disk, then the answer.

An Ack is sent when its bytes are durable, unless the phone's next message is here already, and Accepted when the whole
update is durable and counts. Answers are sent outside of the upload's turn, so that a connection that stands still
never holds up the phone's next one.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from websockets.exceptions import ConnectionClosed

from featherfed.errors import CodecError, RefusedError
from featherfed.server.model.run_model import RunModel
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import Fail, GaveUp
from featherfed.server.rounds.folding import AwaitedUpdate, WholeUpdate
from featherfed.server.rounds.pacing import Pacing
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.rounds.upload_register import Upload, UploadRegister
from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import StoredUpdate
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.messages import Accepted, Ack, Cancel, UpdateBegin, UpdateChunk

Answer = Accepted | Ack | Cancel | None


class Intake(Protocol):
    """Takes updates that are whole: `Folding`, or `Arrivals` where circles are summed."""

    over: bool
    """Whether the server ends."""

    async def count(self, update: AwaitedUpdate) -> bool:
        """Make an update durable; return whether it counts, or may, and raise what is wrong with it."""

    def answer(self, update: WholeUpdate) -> Accepted | Ack:
        """Return what the phone of such an update is told."""


@dataclass(slots=True)
class Sending:
    """The update that a connection is sending; `upload` None: one that does not count."""

    begin: UpdateBegin
    upload: Upload | None = None


class Receiver:
    """Takes the update messages of all phones."""

    def __init__(
        self,
        current: CurrentRound,
        model: RunModel,
        storage: RunStorage,
        uploads: UploadRegister,
        intake: Intake,
        watcher: Watcher,
        pacing: Pacing,
    ) -> None:
        self._current = current
        self._model = model
        self._storage = storage
        self._uploads = uploads
        self._intake = intake
        self._watcher = watcher
        self._pacing = pacing
        self._sending: dict[PhoneConnection, Sending] = {}

    async def begin(self, phone: PhoneConnection, message: UpdateBegin) -> None:
        """Take the first bytes of an update, or say how many of them are durable."""
        self._sending.pop(phone, None)
        # Under its turn from the beginning: the phone's other connection may bring it all meanwhile.
        async with self._uploads.turns.turn((message.round, phone.shard)):
            answer = await self._begun(phone, message)
        if answer is not None:
            await self._answer(phone, answer)

    async def _begun(self, phone: PhoneConnection, message: UpdateBegin) -> Answer:
        key, traffic, size = (message.round, phone.shard), self._received(phone), len(message.data)
        known = self._uploads.get(key)
        if known is None and not self._current.state.wants(*key):
            # Perhaps its round was closed before this server was started, or long ago.
            stored = await asyncio.get_running_loop().run_in_executor(None, self._storage.store.update, *key)
            known = Upload(stored) if stored else None
        if self._current.is_paused:
            # As in `_keep`.
            return None
        if known is not None and self._goes_on_elsewhere(phone, known):
            self._sending[phone] = Sending(message, known)
            self._receive_in_vain(phone, self._sending[phone], size)
            return None
        if known is not None and known.update.digest == message.digest and (known.accepted or known.arrived):
            traffic.resent += size
            await self._all_durable()
            return Accepted(message.round) if known.accepted else Ack(message.round, message.size)
        # Another update than the one that counts: the phone had forgotten that one, and trained once more.
        wanted = self._current.state.wants(*key) and not (known is not None and known.accepted)
        if not wanted or not self._current.state.takes(message.attempt):
            traffic.wasted += size
            self._sending[phone] = Sending(message)
            # If it is wanted, its circle of an earlier attempt is over; that of this one is on its way to the phone.
            return None if wanted else Cancel(message.round)
        try:
            self._check_limits(message)
        except RefusedError:
            traffic.wasted += size
            raise
        upload = self._announce(phone, message)
        upload.sender = phone
        sending = self._sending[phone] = Sending(message, upload)
        self._watcher.upload_advanced(phone.shard, message.round, upload.durable, message.size)
        return await self._keep(phone, sending, message.offset, message.data)

    async def chunk(self, phone: PhoneConnection, message: UpdateChunk) -> None:
        """Take the next bytes of an update."""
        sending = self._sending.get(phone)
        if sending is None:
            # The end of an update that was answered, as accepted before, while its last chunks were on their way.
            self._received(phone).resent += len(message.data)
            return
        key = (sending.begin.round, phone.shard)
        # What does not count has no state to guard.
        async with self._uploads.turns.turn(key) if sending.upload is not None else contextlib.nullcontext():
            if sending.upload is not None and self._goes_on_elsewhere(phone, sending.upload):
                self._receive_in_vain(phone, sending, len(message.data))
                return
            answer = await self._keep(phone, sending, message.offset, message.data)
        if answer is not None:
            await self._answer(phone, answer)

    def forget(self, phone: PhoneConnection) -> None:
        """Drop what a connection had under way; what is durable stays for the next one."""
        self._sending.pop(phone, None)
        phone.count_cut()

    def give_up(self, event: Fail | GaveUp) -> None:
        """Wait for a phone's update no longer: it sent what cannot count, or says that it has none.

        Called under the lock of the round.
        """
        current = self._current
        current.post(event)
        if event.shard in current.state.failed and current.state.phase not in (Phase.GATHERING, Phase.PAUSED):
            self._storage.commits.queue(current.row(), *self._uploads.waste_unwanted(current.state))

    async def conclude(self, phone: PhoneConnection, update: WholeUpdate, counted: "asyncio.Future[bool]") -> None:
        """Say what became of an update that was taken at once, where that is more than a word; under its turn."""
        try:
            answer = await self._take_whole(phone, update, counted)
        finally:
            self._uploads.turns.give_back(update.key)
        if answer is not None:
            await self._answer(phone, answer)

    def is_sending(self, phone: PhoneConnection) -> bool:
        """Whether an update is under way of which more was to come."""
        return phone in self._sending

    def _check_limits(self, message: UpdateBegin) -> None:
        """Raise `RefusedError` for an update that is larger, or would weigh more, than any of this run can."""
        limits = self._model.sum
        if message.size > (most := limits.max_update_bytes.at(message.round)):
            raise RefusedError(
                f"update of {message.size} bytes exceeds the {most} bytes"
                f" that the uplink {limits.uplink.at(message.round)} can need for this model"
            )
        if message.examples > limits.max_examples:
            raise RefusedError(
                f"update claims {message.examples} examples; a phone of this run can have"
                f" {limits.max_examples} (--max-examples)"
            )

    def _received(self, phone: PhoneConnection) -> Traffic:
        """Return the entry in which the payload of the phone's last message was counted."""
        return self._storage.ledger.entry(phone.counted_in, phone.shard, "uplink")

    @staticmethod
    def _goes_on_elsewhere(phone: PhoneConnection, upload: Upload) -> bool:
        """Whether its phone has begun this update, or asked about it, on a newer connection than this one.

        It goes by what it was told there, and sends what was still on its way here once more: taken, these bytes would
        be here twice, and an Ack of them would tell the phone that it sends in vain.
        """
        return phone.replaced and upload.sender not in (None, phone)

    def _receive_in_vain(self, phone: PhoneConnection, sending: Sending, size: int) -> None:
        """Book bytes that a connection brought after its phone had left it."""
        traffic, upload = self._received(phone), sending.upload
        if upload is not None and upload.update.digest == sending.begin.digest:
            traffic.resent += size
        else:
            traffic.wasted += size

    def _announce(self, phone: PhoneConnection, message: UpdateBegin) -> Upload:
        """Return the upload that the message begins or goes on with."""
        key, commits = (message.round, phone.shard), self._storage.commits
        upload = self._uploads.get(key)
        if upload is not None:
            if (upload.update.digest, upload.update.size) == (message.digest, message.size):
                return upload
            # A phone that lost its memory trained again: to other bytes, or it would have gone on with these.
            commits.queue(*self._uploads.waste(key))
        update = StoredUpdate(*key, "receiving", message.size, message.digest, message.examples)
        upload = self._uploads.begin(key, update)
        self._received(phone).theory += self._model.sum.theory_bytes.at(message.round)
        # An update of one frame is announced and accepted in one transaction.
        if len(message.data) < message.size and (rows := self._storage.payloads.begun(update)):
            commits.queue(*rows)
        return upload

    async def _keep(self, phone: PhoneConnection, sending: Sending, offset: int, data: bytes) -> Answer:
        """Make new bytes durable; return what to tell the phone. Called under the upload's turn, if it has one."""
        upload, begin = sending.upload, sending.begin
        key = (begin.round, phone.shard)
        if upload is not None and upload.accepted:
            # The phone's other connection brought the rest.
            self._received(phone).resent += len(data)
            self._sending.pop(phone, None)
            await self._all_durable()
            return Accepted(begin.round)
        if self._current.is_paused:
            # Not a word: it is sent again when the run is resumed.
            return None
        wanted = self._current.state.wants(*key)
        if upload is None or self._uploads.get(key) is not upload or not wanted:
            self._received(phone).wasted += len(data)
            if wanted or not self._current.state.takes(begin.attempt):
                # It was called off and is asked again: a Cancel here would call off what it is about to send. Or the
                # next circle is on its way to it, and this was masked for the last one.
                return None
            # Its Cancel went to whatever connection the phone had then: with the last byte it is said again.
            return Cancel(begin.round) if offset + len(data) == begin.size else None
        known = min(max(upload.durable - offset, 0), len(data))
        if known:
            self._received(phone).resent += known
        if offset > upload.durable:
            # The phone believes in bytes that this server does not have: it is told where to go on.
            self._received(phone).wasted += len(data)
            return Ack(begin.round, upload.durable)
        fresh = data[known:]
        if upload.durable + len(fresh) == upload.update.size:
            self._sending.pop(phone, None)
            update = AwaitedUpdate(key, upload, fresh, begin.digest, begin.examples)
            return await self._take_whole(phone, update, self._intake.count(update))
        if fresh:
            rows = self._storage.payloads.keep(key, upload.durable, fresh)
            durable = self._storage.commits.queue(*rows) if rows else None
            # Before the write: whoever wastes this upload meanwhile counts these bytes too.
            upload.durable += len(fresh)
            if durable is not None:
                await durable
            self._watcher.upload_advanced(phone.shard, begin.round, upload.durable, begin.size)
            if phone.more_waits:
                # One Ack for both.
                return None
        return Ack(begin.round, upload.durable)

    async def _take_whole(self, phone: PhoneConnection, update: WholeUpdate, counting: Awaitable[bool]) -> Answer:
        """Have an update counted whose bytes are all here, in however many messages; return what to tell the phone.

        Raises `CodecError` or `RefusedError` for one that is not valid; all of its bytes are wasted then.
        """
        round_number, _ = update.key
        try:
            counts = await counting
        except (CodecError, RefusedError):
            self._received(phone).wasted += len(update.last)
            await self._storage.commits.queue(*self._uploads.waste(update.key))
            raise
        if counts:
            return self._intake.answer(update)
        if self._intake.over or self._current.is_paused:
            # As in `_keep`.
            return None
        if update.upload.accepted:
            self._received(phone).resent += len(update.last)
            await self._all_durable()
            return Accepted(round_number)
        self._received(phone).wasted += len(update.last)
        if self._current.state.wants(*update.key) and self._uploads.get(update.key) is not update.upload:
            # Called off while it waited, and asked again: as in `_keep`.
            return None
        return Cancel(round_number)

    async def _all_durable(self) -> None:
        """Return when what is known of updates is on the disk: another connection may have brought one just now."""
        await self._storage.commits.write()

    async def _answer(self, phone: PhoneConnection, answer: Accepted | Ack | Cancel) -> None:
        """Tell the phone, if it is still there: what it sent before its link broke is taken all the same."""
        if not isinstance(answer, Ack):
            phone.forgets(answer.round)
        with contextlib.suppress(ConnectionClosed):
            await phone.send(answer)
        if not isinstance(answer, Ack):
            self._pacing.release(phone, self._current.state)
