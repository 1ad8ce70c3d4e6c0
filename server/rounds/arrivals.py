"""Whole updates of a run that sums circles: to the disk, and then the machine hears of them.

Nothing is decoded here: a masked update says nothing by itself. It counts when the sum of its circle is open
(`unmasking`).
"""

import asyncio

from featherfed.errors import RefusedError
from featherfed.server.model.run_model import RunModel
from featherfed.server.rounds.assignments import Assignments
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import Accept
from featherfed.server.rounds.folding import AwaitedUpdate, WholeUpdate
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import put_update
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.messages import Accepted, Ack, digest_of


class Arrivals:
    """Takes updates as they become whole."""

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
        self.over = False

    async def count(self, update: AwaitedUpdate) -> bool:
        """Make an update durable and tell the machine that it is here; return whether it is wanted.

        Raises `CodecError` or `RefusedError` for one that is not what was announced, or cannot be
        summed by its circle.
        """
        round_number, shard = update.key
        loop, whole = asyncio.get_running_loop(), self._storage.payloads.whole
        payload: bytes | None = update.last
        if update.upload.durable:
            payload = await loop.run_in_executor(None, whole, update.key, update.last, update.digest)
        elif digest_of(update.last) != update.digest:
            payload = None
        if payload is None:
            size = update.upload.update.size
            raise RefusedError(f"update of {size} bytes does not have the digest that was announced")
        async with self._current.lock:
            state = self._current.state
            if self._uploads.get(update.key) is not update.upload or not state.wants(*update.key):
                return False
            assert isinstance(state, SummedState), "of a run that sums circles"
            number = state.place(shard)
            if number is None:
                return False
            sums = self._model.sum.circles
            assert sums is not None, "of a run that sums circles"
            sums.check(round_number, number, len(state.circles[number].members), payload)
            upload = update.upload
            upload.update = upload.update._replace(state="arrived")
            chunks = self._storage.payloads.keep(update.key, upload.durable, update.last)
            upload.durable = upload.update.size
            # Queued before the machine hears of it: a list that names it as here is written after it.
            durable = self._storage.commits.queue(*chunks, put_update(upload.update))
            self._current.post(Accept(shard, round_number, update.examples, self._assignments.answered(shard)))
            state = self._current.state
            self._watcher.update_arrived(shard, round_number, state.count, state.target)
        await durable
        return True

    def answer(self, update: WholeUpdate) -> Accepted | Ack:
        """Return what its phone is told: its bytes are durable, and whether it counts is known later."""
        round_number, _ = update.key
        return Accepted(round_number) if update.upload.accepted else Ack(round_number, update.upload.update.size)

    async def end(self) -> None:
        """Let go of those who wait: nobody does."""
        self.over = True
