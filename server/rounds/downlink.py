"""Tasks and models on their way to phones: the parcel that each one lacks, in chunks, from where it broke off."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.pipeline import Pipeline
from featherfed.server.config import RunConfig
from featherfed.server.model.parcels import Parcel, Parcels
from featherfed.server.model.versions import Versions
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.circle_book import CircleBook
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.chunking import ChunkSizer, behind_bytes, seen_bytes_per_s
from featherfed.wire.messages import (
    MAX_CHUNK_BYTES,
    AnyMessage,
    Cancel,
    Circle,
    ModelBegin,
    ModelChunk,
    Task,
    WholeModel,
)


@dataclass(slots=True)
class _Delivery:
    round_number: int
    stopped: bool = False


@dataclass(slots=True)
class _Sent:
    """How far the last model for a phone has been sent, over all of its connections."""

    version: int
    digest: bytes
    had: int
    sent: int


class Downlink:
    """Gives phones their tasks."""

    def __init__(self, config: RunConfig, versions: Versions, book: CircleBook, watcher: Watcher) -> None:
        self._config = config
        self._book = book
        self._spec = str(parse_downlink(config.downlink))
        self._versions = versions
        self._watcher = watcher
        self._under_way: dict[PhoneConnection, _Delivery] = {}
        self._sent: dict[int, _Sent] = {}  # by shard
        self._sizers: dict[int, ChunkSizer] = {}
        self._making = asyncio.Lock()

    def deliver(self, phone: PhoneConnection, round_number: int, circle: Circle | None) -> Coroutine[None, None, None]:
        """Send the task of a round, its circle where one is summed, and the model where the phone has another one.

        Returns when all is sent.

        A round trains the version that the round before it made: a phone that does not hold it must be asked for the
        newest round. The model is chosen now: when the coroutine runs, the next version may be in the making.
        """
        # Now, too: what was under way would end in another version than the one that is looked at here.
        self.stop(phone)
        delivery = self._under_way[phone] = _Delivery(round_number)
        held = phone.held_version
        parcels = None if held == round_number - 1 else self._versions.parcels
        return self._deliver(phone, delivery, circle, held, parcels)

    async def _deliver(
        self, phone: PhoneConnection, delivery: _Delivery, circle: Circle | None, held: int, parcels: Parcels | None
    ) -> None:
        round_number = delivery.round_number
        self._watcher.download_began(phone.shard, round_number)
        changes = self._changes(round_number, phone.told_of)
        task = Task(round_number, round_number - 1, changes, *self._book.for_gateway(phone.shard))
        first: list[AnyMessage] = [task]
        if circle is not None:
            await self._kept()
        parcel = None if parcels is None else await self._parcel(parcels, held)
        if not delivery.stopped:
            if circle is not None:
                first.append(self._book.with_keys(phone, circle))
            if parcel is None:
                await phone.send(*first)
            else:
                await self._send_model(phone, first, parcel, delivery)
        if self._under_way.get(phone) is delivery:
            del self._under_way[phone]
            self._watcher.download_ended(phone.shard, round_number)

    async def _kept(self) -> None:
        """Wait until what a phone is told of its circle is on the disk."""
        if self._book.kept is not None:
            await asyncio.shield(self._book.kept)

    async def _parcel(self, parcels: Parcels, held: int) -> Parcel:
        """Return the parcel for phones that hold a version; the others play on while it is made."""
        if parcels.quick or parcels.made(held):
            return parcels.parcel(held)
        # One at a time: the threads are also those that fold and write to the disk.
        async with self._making:
            if made := parcels.made(held):
                return made
            return await asyncio.get_running_loop().run_in_executor(None, parcels.parcel, held)

    def _changes(self, round_number: int, told_of: int) -> dict[str, Any]:
        changes = self._config.changes(round_number, told_of)
        if "uplink" in changes:
            # Written out where the operator named a preset: a phone need not know the presets of this release.
            changes["uplink"] = str(Pipeline.parse(changes["uplink"]))
        return changes

    def cancel(self, phone: PhoneConnection, round_number: int) -> Coroutine[None, None, None]:
        """Tell a phone to stop its work on a round; what is left of its model is not sent.

        What is under way is stopped now: by the time the coroutine runs, the phone may be asked again.
        """
        delivery = self._under_way.get(phone)
        if delivery is not None and delivery.round_number == round_number:
            self.stop(phone)
        return self._say_cancelled(phone, round_number)

    async def _say_cancelled(self, phone: PhoneConnection, round_number: int) -> None:
        await self._kept()
        await phone.send(Cancel(round_number))

    def stop(self, phone: PhoneConnection) -> None:
        """Send no more of what is under way to a phone."""
        delivery = self._under_way.pop(phone, None)
        if delivery is not None:
            delivery.stopped = True

    async def _send_model(
        self, phone: PhoneConnection, first: list[AnyMessage], parcel: Parcel, delivery: _Delivery
    ) -> None:
        digest, had = phone.partial
        offset = min(had, len(parcel.payload)) if digest == parcel.digest else 0
        sizer = self._sizers.setdefault(phone.shard, ChunkSizer())
        sent = self._sent.get(phone.shard)
        if sent is not None and sent.digest == parcel.digest:
            # What a dropped link swallowed is what is sent again.
            phone.traffic("downlink").resent += max(0, sent.sent - offset)
            sizer.carried(max(0, offset - sent.had))
            sizer.broke()
        else:
            if sent is not None and phone.held_version >= sent.version:
                sizer.carried(sent.sent - sent.had)
            if not offset:
                # With an offset it goes on with what was begun before this server was started.
                phone.traffic("downlink").theory += parcel.theory
        sent = self._sent[phone.shard] = _Sent(parcel.version, parcel.digest, offset, offset)
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        chunk_bytes = sizer.chunk_bytes(behind_bytes(0, 0.0))
        message: WholeModel | ModelBegin | ModelChunk
        # Welcome has said it.
        spec = "" if parcel.spec == self._spec else parcel.spec
        if not (spec or offset or len(parcel.lengths) > 1) and len(parcel.payload) <= chunk_bytes:
            message = WholeModel(parcel.version, parcel.payload, parcel.base)
        else:
            message = ModelBegin(
                parcel.version,
                parcel.base,
                spec,
                list(parcel.lengths),
                parcel.digest,
                offset,
                parcel.payload[offset : offset + chunk_bytes],
            )
        # The task travels with the first bytes of its model: headers of TCP and IP weigh as much as itself. Where it
        # changes nothing, and no circle comes with it, a whole model says it.
        if isinstance(message, WholeModel) and [message.task()] == first:
            first = []
        while phone.open:
            # Noted before the chunk is known to have arrived: what this connection sends next comes behind it.
            sent.sent += len(message.data)
            whole = sent.sent == len(parcel.payload)
            phone.partial = (b"", 0) if whole else (parcel.digest, sent.sent)
            if whole:
                phone.held_version = parcel.version
            await phone.send(*first, message)
            first = []
            if whole:
                return
            if delivery.stopped:
                phone.traffic("downlink").wasted += sent.sent - offset
                return
            ahead = sent.sent - offset
            gone, seconds = ahead - phone.websocket.bytes_waiting, now_s() - began_s
            most = min(behind_bytes(gone, seconds), MAX_CHUNK_BYTES)
            chunk_bytes = sizer.chunk_bytes(most, ahead, bytes_per_s=seen_bytes_per_s(gone, seconds))
            message = ModelChunk(sent.sent, parcel.payload[sent.sent : sent.sent + chunk_bytes])
