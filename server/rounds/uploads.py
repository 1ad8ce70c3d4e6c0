"""Updates on their way in: durable byte by byte, counted once, folded when they are whole.

One update has one truth, whatever connections it comes over: `_uploads[round, shard]`, moved under a lock of its own.
Answers are sent outside of it, so that a connection that stands still never holds up the phone's next one.

In the ledger, payload = resent + wasted + what is durable here or counted, for every round and phone.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from websockets.exceptions import ConnectionClosed

from featherfed.errors import CodecError, LocalError, RefusedError, UnexpectedError
from featherfed.server.model.aggregation import Aggregator, Received
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.storage.commits import Commits
from featherfed.server.storage.ledger import Ledger, Traffic
from featherfed.server.storage.store import Statement, Store, StoredUpdate, drop_update, put_chunk, put_update, together
from featherfed.wire.messages import Accepted, Ack, Cancel, UpdateBegin, UpdateChunk

BATCH = 64
"""Updates that are folded and written together: what the event loop does for them in one go takes milliseconds."""
GROUP_BYTES = 256 * 1024
"""Payloads that are decoded together, and in memory at once: many small ones, or one that is larger."""
Answer = Accepted | Ack | Cancel | None


@dataclass(slots=True)
class Upload:
    """What is known of one update; `durable` bytes of it are on the disk."""

    update: StoredUpdate
    durable: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the update counts."""
        return self.update.state == "accepted"


@dataclass(slots=True)
class Sending:
    """The update that a connection is sending; `upload` None: one that does not count."""

    begin: UpdateBegin
    upload: Upload | None = None


@dataclass(slots=True, eq=False)
class _Whole:
    """An update whose bytes are all here. `counted` is done once it counts and is durable, or says that it does not."""

    key: tuple[int, int]
    upload: Upload
    last: bytes
    digest: bytes
    examples: int
    counted: "asyncio.Future[bool]"

    def answer(self, counts: bool) -> None:
        """Let whoever waits go on, if somebody still does."""
        if not self.counted.done():
            self.counted.set_result(counts)

    def fail(self, error: BaseException) -> None:
        """Raise an error where the update came from."""
        if not self.counted.done():
            self.counted.set_exception(error)


@dataclass(slots=True)
class Uploads:
    """Takes the update messages of all phones.

    `wanted(round, shard)` says whether an update still counts, `closing()` whether its sum is being closed just now;
    `accepted(round, shard, examples)` is told that it counts;
    `advanced(shard, round, durable, size)` is told how far each one has come.
    """

    aggregator: Aggregator
    store: Store
    commits: Commits
    ledger: Ledger
    wanted: Callable[[int, int], bool]
    closing: Callable[[], bool]
    room: Callable[[], int]
    accepted: Callable[[int, int, int], None]
    advanced: Callable[[int, int, int, int], None]
    folding: asyncio.Condition = field(default_factory=asyncio.Condition)
    """Held while the sum changes; whoever closes a round takes it, so that nothing slips in between, and notifies."""
    _over: bool = False
    _uploads: dict[tuple[int, int], Upload] = field(default_factory=dict)
    _turns: dict[tuple[int, int], asyncio.Lock] = field(default_factory=dict)
    _sending: dict[PhoneConnection, Sending] = field(default_factory=dict)
    _waiting: list[_Whole] = field(default_factory=list)
    _folder: "asyncio.Task[None] | None" = None

    def restore(self, round_number: int, is_open: bool) -> None:
        """Fold again what the disk has of a round if it is open, and book what died with the server's memory."""
        kept: dict[int, int] = {}
        for update in self.store.updates():
            key = (update.round_number, update.shard)
            durable = update.size
            if update.state == "receiving" or (is_open and update.counts_in == round_number):
                payload = self.store.payload(*key)
                durable = len(payload)
                self._uploads[key] = Upload(update, durable)
                if update.state == "accepted":
                    self.aggregator.add(*key, payload, update.examples)
            kept[update.shard] = kept.get(update.shard, 0) + durable
        for shard in self.ledger.shards():
            # It came, and was not durable when the server was killed: the phone sends it again.
            total = self.ledger.total("uplink", shard=shard)
            lost = total.payload - total.resent - total.wasted - kept.get(shard, 0)
            self.ledger.entry(round_number, shard, "uplink").resent += max(0, lost)

    def forget(self, phone: PhoneConnection) -> None:
        """Drop what a connection had under way; what is durable stays for the next one."""
        self._sending.pop(phone, None)
        phone.count_cut()

    def forget_round(self, round_number: int) -> None:
        """Drop what is known of a closed round: for late copies, the store remembers who was accepted."""
        self._uploads = {
            key: upload
            for key, upload in self._uploads.items()
            if not upload.accepted or (upload.update.counts_in or 0) > round_number
        }
        self._turns = {key: turn for key, turn in self._turns.items() if turn.locked() or key in self._uploads}

    async def begin(self, phone: PhoneConnection, message: UpdateBegin) -> None:
        """Take the first bytes of an update, or say how many of them are durable."""
        self._sending.pop(phone, None)
        key = (message.round, phone.shard)
        known = self._uploads.get(key)
        if known is None and not self.wanted(*key):
            # Perhaps its round was closed before this server was started, or long ago.
            stored = await asyncio.get_running_loop().run_in_executor(None, self.store.update, *key)
            known = Upload(stored) if stored else None
        if known is not None and known.accepted:
            if known.update.digest != message.digest:
                raise RefusedError(f"round {message.round} already has another update of phone {phone.name!r}")
            self._received(phone).resent += len(message.data)
            await _answer(phone, Accepted(message.round))
            return
        if not self.wanted(*key):
            self._received(phone).wasted += len(message.data)
            self._sending[phone] = Sending(message)
            await _answer(phone, Cancel(message.round))
            return
        if message.size > (most := self.aggregator.max_update_bytes.at(message.round)):
            raise RefusedError(
                f"update of {message.size} bytes exceeds the {most} bytes"
                f" that the uplink {self.aggregator.uplink.at(message.round)} can need for this model"
            )
        if message.examples > self.aggregator.max_examples:
            raise RefusedError(
                f"update claims {message.examples} examples; a phone of this run can have"
                f" {self.aggregator.max_examples} (--max-examples)"
            )
        async with self._turn(key):
            upload = self._announce(phone, message)
            sending = self._sending[phone] = Sending(message, upload)
            self.advanced(phone.shard, message.round, upload.durable, message.size)
            answer = await self._keep(phone, sending, message.offset, message.data)
        if answer is not None:
            await _answer(phone, answer)

    async def chunk(self, phone: PhoneConnection, message: UpdateChunk) -> None:
        """Take the next bytes of an update."""
        if phone in self._sending:
            await self._take(phone, message.offset, message.data)
        else:
            # The end of an update that was answered, as accepted before, while its last chunks were on their way.
            self._received(phone).resent += len(message.data)

    def _turn(self, key: tuple[int, int]) -> asyncio.Lock:
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Lock()
        return turn

    def _received(self, phone: PhoneConnection) -> Traffic:
        """Return the entry in which the payload of the phone's last message was counted."""
        return self.ledger.entry(phone.counted_in, phone.shard, "uplink")

    def _announce(self, phone: PhoneConnection, message: UpdateBegin) -> Upload:
        """Return the upload that the message begins or goes on with."""
        key = (message.round, phone.shard)
        upload = self._uploads.get(key)
        if upload is not None:
            if upload.accepted or (upload.update.digest, upload.update.size) == (message.digest, message.size):
                return upload
            # A phone that lost its memory trained again: to other bytes, or it would have gone on with these.
            self.commits.queue(*self.waste(*key))
        update = StoredUpdate(*key, "receiving", message.size, message.digest, message.examples)
        self._uploads[key] = upload = Upload(update)
        self.ledger.entry(phone.counted_in, phone.shard, "uplink").theory += self.aggregator.theory_bytes.at(
            message.round
        )
        if len(message.data) < message.size:
            # An update of one frame is announced and accepted in one transaction.
            self.commits.queue(put_update(update))
        return upload

    async def _take(self, phone: PhoneConnection, offset: int, data: bytes) -> None:
        sending = self._sending[phone]
        key = (sending.begin.round, phone.shard)
        # What does not count has no state to guard, and must leave no lock behind: its round may be any number.
        async with self._turn(key) if sending.upload is not None else contextlib.nullcontext():
            answer = await self._keep(phone, sending, offset, data)
        if answer is not None:
            await _answer(phone, answer)

    async def _keep(self, phone: PhoneConnection, sending: Sending, offset: int, data: bytes) -> Answer:
        """Make new bytes durable; return what to tell the phone."""
        upload, begin = sending.upload, sending.begin
        key = (begin.round, phone.shard)
        if upload is not None and upload.accepted:
            # The phone's other connection brought the rest.
            self._received(phone).resent += len(data)
            self._sending.pop(phone, None)
            return Accepted(begin.round)
        if upload is None or self._uploads.get(key) is not upload or not self.wanted(*key):
            self._received(phone).wasted += len(data)
            # Its Cancel went to whatever connection the phone had then: with the last byte it is said again.
            return Cancel(begin.round) if offset + len(data) == begin.size else None
        known = min(max(upload.durable - offset, 0), len(data))
        self._received(phone).resent += known
        if offset > upload.durable:
            # The phone believes in bytes that this server does not have: it is told where to go on.
            self._received(phone).wasted += len(data)
            return Ack(begin.round, upload.durable)
        fresh = data[known:]
        if upload.durable + len(fresh) == upload.update.size:
            return await self._complete(phone, sending, upload, fresh)
        if fresh:
            durable = self.commits.queue(put_chunk(*key, upload.durable, fresh))
            # Before the write: whoever wastes this upload meanwhile counts these bytes too.
            upload.durable += len(fresh)
            await durable
            self.advanced(phone.shard, begin.round, upload.durable, begin.size)
        return Ack(begin.round, upload.durable)

    async def _complete(self, phone: PhoneConnection, sending: Sending, upload: Upload, last: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        begin, key = sending.begin, (sending.begin.round, phone.shard)
        self._sending.pop(phone, None)
        try:
            counts = await self._counted(_Whole(key, upload, last, begin.digest, begin.examples, loop.create_future()))
        except (CodecError, RefusedError):
            self._received(phone).wasted += len(last)
            await self.commits.queue(*self.waste(*key))
            raise
        if counts:
            return Accepted(begin.round)
        if self._over:
            return None
        if upload.accepted:
            self._received(phone).resent += len(last)
            return Accepted(begin.round)
        self._received(phone).wasted += len(last)
        return Cancel(begin.round)

    async def _counted(self, whole: "_Whole") -> bool:
        """Fold an update with all that wait and make it durable; return whether it counts."""
        self._waiting.append(whole)
        if self._folder is None or self._folder.done():
            self._folder = asyncio.create_task(self._fold_waiting(), name="group fold")
        return await whole.counted

    async def _fold_waiting(self) -> None:
        """Fold what waits in batches, as long as something does: a batch costs one way to a thread and back."""
        while self._waiting:
            async with self.folding:
                # An update that the next sum takes waits until this one is closed.
                await self.folding.wait_for(
                    lambda: self._over or not self.closing() or any(not self._counts(whole) for whole in self._waiting)
                )
                if self._over:
                    batch, self._waiting = self._waiting, []
                    for whole in batch:
                        whole.answer(False)
                    return
                for whole in [whole for whole in self._waiting if not self._counts(whole)]:
                    self._waiting.remove(whole)
                    whole.answer(False)
                if not self.closing():
                    # No more than the sum has room for: the machine closes it on the last of them. And one of a
                    # phone: whether another counts is known after it.
                    first: dict[int, _Whole] = {}
                    for whole in self._waiting:
                        first.setdefault(whole.key[1], whole)
                    batch = list(first.values())[: min(self.room(), BATCH)]
                    taken = set(batch)
                    self._waiting = [whole for whole in self._waiting if whole not in taken]
                    await self._fold(batch)

    def _counts(self, whole: "_Whole") -> bool:
        return self._uploads.get(whole.key) is whole.upload and self.wanted(*whole.key)

    async def _fold(self, batch: list["_Whole"]) -> None:
        try:
            errors = await asyncio.get_running_loop().run_in_executor(None, self._add, batch)
        except Exception as error:
            # Ours: the sum of the round cannot be trusted any more.
            ours = error if isinstance(error, LocalError) else UnexpectedError(error)
            for whole in batch:
                whole.fail(ours)
            return
        folded = []
        for whole, fault in zip(batch, errors, strict=True):
            if fault is None:
                folded.append(whole)
            else:
                whole.fail(fault)
        if not folded:
            return
        chunks, updates = [], []
        for whole in folded:
            upload = whole.upload
            upload.update = replace(upload.update, state="accepted", counts_in=self.aggregator.open_round)
            chunks.append(put_chunk(*whole.key, upload.durable, whole.last))
            updates.append(put_update(upload.update))
            upload.durable = upload.update.size
        # The write joins the queue before the machine hears of the updates, so a round that closes on them waits
        # for it.
        durable = self.commits.queue(together(chunks), together(updates))
        for whole in folded:
            self.accepted(*whole.key, whole.examples)

        def tell(durable: "asyncio.Future[None]") -> None:
            for whole in folded:
                if (error := durable.exception()) is None:
                    whole.answer(True)
                else:
                    whole.fail(error)

        # Their connections wake once, and not for the sum and for the disk.
        durable.add_done_callback(tell)

    def _add(self, batch: list["_Whole"]) -> list[CodecError | RefusedError | None]:
        """Add each update to the sum; return for each what is wrong with it. Some payloads at a time are in memory."""
        faults: list[CodecError | RefusedError | None] = [None] * len(batch)
        group: list[tuple[int, Received]] = []
        num_bytes = 0
        for number, whole in enumerate(batch):
            payload = whole.last
            if whole.upload.durable:
                payload = self.store.payload(*whole.key) + payload
            if blake2b(payload, digest_size=8).digest() != whole.digest:
                faults[number] = RefusedError(
                    f"update of {len(payload)} bytes does not have the digest that was announced"
                )
                continue
            group.append((number, Received(*whole.key, payload, whole.examples)))
            num_bytes += len(payload)
            if num_bytes >= GROUP_BYTES:
                self._add_group(group, faults)
                group, num_bytes = [], 0
        self._add_group(group, faults)
        return faults

    def _add_group(self, group: list[tuple[int, Received]], faults: list[CodecError | RefusedError | None]) -> None:
        found = self.aggregator.add_all([update for _, update in group])
        for (number, _), fault in zip(group, found, strict=True):
            faults[number] = fault

    async def end(self) -> None:
        """Let go of those who wait for the next round: the server ends before it."""
        async with self.folding:
            self._over = True
            self.folding.notify_all()

    def waste(self, round_number: int, shard: int) -> list[Statement]:
        """Count what a phone had sent of an unfinished update as wasted; return what makes the disk forget it."""
        upload = self._uploads.get((round_number, shard))
        if upload is None or upload.accepted:
            return []
        del self._uploads[round_number, shard]
        self.ledger.entry(self.aggregator.open_round, shard, "uplink").wasted += upload.durable
        return drop_update(round_number, shard)

    def waste_unwanted(self) -> list[Statement]:
        """Waste what is unfinished and will not count: of stragglers, of phones that were refused, of a run's end."""
        return [statement for key in list(self._uploads) if not self.wanted(*key) for statement in self.waste(*key)]


async def _answer(phone: PhoneConnection, answer: Accepted | Ack | Cancel) -> None:
    """Tell the phone, if it is still there: what it sent before its link broke is taken all the same."""
    with contextlib.suppress(ConnectionClosed):
        await phone.send(answer)
