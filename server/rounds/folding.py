"""Whole updates on their way into the sum of the round, in batches: folded, queued for the disk, and posted as one.

A batch costs one way to a thread and back, and shares one transaction. What comes while a batch is on its way to the
disk is the next one: where phones answer one after the other, batches of two or three would cost several times as much
an update.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from featherfed.errors import CodecError, LocalError, RefusedError, UnexpectedError
from featherfed.server.model.round_sum import Received
from featherfed.server.model.run_model import RunModel
from featherfed.server.rounds.assignments import Assignments
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import Accept
from featherfed.server.rounds.upload_register import Key, Upload, UploadRegister
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import put_updates
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.messages import Accepted, digest_of

BATCH = 64
"""Updates that are folded and written together: what the event loop does for them in one go takes milliseconds."""
GROUP_BYTES = 256 * 1024
"""Payloads that are decoded together, and in memory at once: many small ones, or one that is larger."""


@dataclass(slots=True, eq=False)
class WholeUpdate:
    """An update whose bytes are all here: what is durable of it, then `last`.

    `digest` is what was announced; empty: it came as one message, which announces none.
    """

    key: Key
    upload: Upload
    last: bytes
    digest: bytes
    examples: int

    def answer(self, counts: bool) -> None:
        """Hear that the update counts and is durable, or that it does not count."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Hear what is wrong with the update, or with this server."""
        raise NotImplementedError


def _future() -> "asyncio.Future[bool]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class AwaitedUpdate(WholeUpdate):
    """One whose end a task waits for: `counted` says whether it counts."""

    counted: "asyncio.Future[bool]" = field(default_factory=_future)

    def answer(self, counts: bool) -> None:
        """Let the task go on, if it still waits."""
        if not self.counted.done():
            self.counted.set_result(counts)

    def fail(self, error: BaseException) -> None:
        """Raise an error in the task."""
        if not self.counted.done():
            self.counted.set_exception(error)


class Folding:
    """Folds updates as they become whole; those of the next sum wait until this one is closed."""

    def __init__(
        self,
        current: CurrentRound,
        model: RunModel,
        storage: RunStorage,
        uploads: UploadRegister,
        assignments: Assignments,
        watcher: Watcher,
    ) -> None:
        self._current = current
        self._model = model
        self._storage = storage
        self._uploads = uploads
        self._assignments = assignments
        self._watcher = watcher
        self._waiting: deque[WholeUpdate] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._due = asyncio.Event()
        self.over = False

    async def count(self, update: AwaitedUpdate) -> bool:
        """Fold an update with all that wait and make it durable; return whether it counts.

        Raises `CodecError` or `RefusedError` for one that is not valid, and `LocalError` for a fault of ours.
        """
        self.take(update)
        return await update.counted

    def take(self, update: WholeUpdate) -> None:
        """Have an update folded with all that wait; it hears how that ends."""
        self._waiting.append(update)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._fold_waiting(), name="group fold")
        elif self._is_due():
            self._due.set()

    def answer(self, update: WholeUpdate) -> Accepted:
        """Return what the phone of an update that counts is told."""
        return Accepted(update.key[0])

    async def end(self) -> None:
        """Let go of those who wait for the next round: the server ends before it."""
        async with self._current.lock:
            self.over = True
            self._current.lock.notify_all()

    async def _fold_waiting(self) -> None:
        """Fold what waits in batches, as long as something does."""
        current = self._current
        while self._waiting:
            while not self._is_due():
                self._due.clear()
                await self._due.wait()
            async with current.lock:
                # An update that the next sum takes waits until this one is closed.
                await current.lock.wait_for(
                    lambda: self.over or not current.is_closing or any(not self._wanted(each) for each in self._waiting)
                )
                if batch := self._taken(0 if current.is_closing else min(current.room, BATCH)):
                    await self._fold(batch)

    def _is_due(self) -> bool:
        """Whether to fold what waits: the last batch is written, or this one is whole, or the last of its round."""
        written = self._writing is None or self._writing.done()
        return written or len(self._waiting) >= min(self._current.room, BATCH)

    def _taken(self, most: int) -> list[WholeUpdate]:
        """Take the first that are wanted off the queue; answer those between them, or all where none is taken.

        One of each phone: whether its other ones count is known once this one does.
        """
        batch: dict[int, WholeUpdate] = {}
        later: list[WholeUpdate] = []
        while self._waiting and (len(batch) < most or not most):
            update = self._waiting.popleft()
            if self.over or not self._wanted(update):
                update.answer(False)
            elif most and update.key[1] not in batch:
                batch[update.key[1]] = update
            else:
                later.append(update)
        self._waiting.extendleft(reversed(later))
        return list(batch.values())

    def _wanted(self, update: WholeUpdate) -> bool:
        return self._uploads.get(update.key) is update.upload and self._current.state.wants(*update.key)

    async def _fold(self, batch: list[WholeUpdate]) -> None:
        try:
            faults = await asyncio.get_running_loop().run_in_executor(None, self._add, batch)
        except Exception as error:
            # Ours: the sum of the round cannot be trusted any more.
            ours = error if isinstance(error, LocalError) else UnexpectedError(error)
            for update in batch:
                update.fail(ours)
            return
        folded = []
        for update, fault in zip(batch, faults, strict=True):
            if fault is None:
                folded.append(update)
            else:
                update.fail(fault)
        if not folded:
            return
        parts, counts_in = [], self._model.sum.open_round
        for update in folded:
            upload = update.upload
            parts.append((update.key, upload.durable, update.last))
            upload.update = upload.update.accepted(update.digest, counts_in)
            upload.durable = upload.update.size
        chunks = self._storage.payloads.keep_folded(parts)
        # The write is queued before the machine hears of the updates: a round that closes on them waits for it.
        rows = put_updates([update.upload.update for update in folded])
        durable = self._storage.commits.queue(*chunks, rows)
        self._writing = durable
        self._post(folded)

        def tell(durable: "asyncio.Future[None]") -> None:
            self._due.set()
            for update in folded:
                if (error := durable.exception()) is not None:
                    update.fail(error)
                    continue
                try:
                    update.answer(True)
                except Exception as fault:
                    # What one phone's answer makes of this program ends its connection: the others hear.
                    update.fail(fault)

        # Once, and not for the sum and for the disk.
        durable.add_done_callback(tell)

    def _post(self, updates: Sequence[WholeUpdate]) -> None:
        """Tell the machine, and who watches, that updates count."""
        answered, before = self._assignments.answered, self._current.state
        self._current.post_all(
            [Accept(shard, number, each.examples, answered(shard)) for each in updates for number, shard in [each.key]]
        )
        for count, update in enumerate(updates, before.count + 1):
            round_number, shard = update.key
            self._watcher.update_accepted(shard, round_number, count, before.target)

    def _add(self, batch: Sequence[WholeUpdate]) -> list[CodecError | RefusedError | None]:
        """Add each update to the sum; return for each what is wrong with it. Some payloads at a time are in memory.

        Called in a thread.
        """
        faults: list[CodecError | RefusedError | None] = [None] * len(batch)
        group: list[tuple[int, Received]] = []
        num_bytes = 0
        for number, update in enumerate(batch):
            payload = self._payload(update)
            if payload is None:
                size = update.upload.update.size
                faults[number] = RefusedError(f"update of {size} bytes does not have the digest that was announced")
            else:
                group.append((number, Received(*update.key, payload, update.examples)))
                num_bytes += len(payload)
            if group and (num_bytes >= GROUP_BYTES or number == len(batch) - 1):
                found = self._model.sum.add_all([received for _, received in group])
                for (place, _), fault in zip(group, found, strict=True):
                    faults[place] = fault
                group, num_bytes = [], 0
        return faults

    def _payload(self, update: WholeUpdate) -> bytes | None:
        """Return an update's bytes; None where they do not have the digest that was announced."""
        if update.upload.durable:
            return self._storage.payloads.whole(update.key, update.last, update.digest)
        if not update.digest:
            update.digest = digest_of(update.last)
            return update.last
        return update.last if digest_of(update.last) == update.digest else None
