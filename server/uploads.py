"""Updates on their way in: durable byte by byte, counted once, folded when they are whole."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from featherfed.errors import CodecError, RefusedError
from featherfed.wire.messages import Accepted, Ack, Cancel, UpdateBegin, UpdateChunk
from server.aggregation import Aggregator
from server.commits import Commits
from server.ledger import Ledger
from server.phone_connection import PhoneConnection
from server.store import Store, StoredUpdate, drop_update, put_chunk, put_update


@dataclass(slots=True)
class Incoming:
    """The update that a connection is sending; `durable` bytes of it are on the disk."""

    begin: UpdateBegin
    durable: int
    wanted: bool


class Uploads:
    """Takes the update messages of all phones."""

    def __init__(
        self,
        *,
        aggregator: Aggregator,
        store: Store,
        commits: Commits,
        ledger: Ledger,
        wanted: Callable[[int, int], bool],
        accepted: Callable[[int, int], None],
    ) -> None:
        """`wanted(round, shard)` says whether an update still counts; `accepted(round, shard)` is told that it does."""
        self._aggregator = aggregator
        self._store = store
        self._commits = commits
        self._ledger = ledger
        self._wanted = wanted
        self._accepted = accepted
        self._known: dict[tuple[int, int], StoredUpdate] = {}
        self._durable: dict[tuple[int, int], int] = {}
        self._incoming: dict[PhoneConnection, Incoming] = {}
        self.folding = asyncio.Lock()
        """Held while the sum changes; whoever closes a round takes it, so that nothing slips in between."""

    def restore(self, round_number: int) -> frozenset[int]:
        """Fold again what the disk has of a round that was open, return the shards that count."""
        counted = set()
        for update in self._store.updates(round_number):
            key = (round_number, update.shard)
            payload = self._store.payload(*key)
            self._known[key] = update
            self._durable[key] = len(payload)
            if update.state == "accepted":
                self._aggregator.add(round_number, update.shard, payload, update.examples)
                counted.add(update.shard)
        return frozenset(counted)

    def forget(self, connection: PhoneConnection) -> None:
        """Drop what a connection had under way; what is durable stays for the next one."""
        self._incoming.pop(connection, None)

    def forget_round(self, round_number: int) -> None:
        """Drop what is known of a closed round: a late copy is answered by its absence from the open one."""
        for key in [key for key in self._durable if key[0] <= round_number]:
            del self._durable[key]

    async def begin(self, phone: PhoneConnection, message: UpdateBegin) -> None:
        """Take the first bytes of an update, or say how many of them are durable."""
        self._incoming.pop(phone, None)
        key = (message.round, phone.shard)
        known = self._known.get(key)
        traffic = self._ledger.entry(*key, "uplink") if known else None
        if known and known.state == "accepted":
            if known.digest != message.digest:
                raise RefusedError(f"round {message.round} already has another update of phone {phone.name!r}")
            if traffic:
                traffic.resent += len(message.data)
            await phone.send(Accepted(message.round))
            return
        if not self._wanted(*key):
            self._waste(phone, message.round, len(message.data))
            self._incoming[phone] = Incoming(message, 0, wanted=False)
            await phone.send(Cancel(message.round))
            return
        if message.size > self._aggregator.max_update_bytes:
            raise RefusedError(
                f"update of {message.size} bytes exceeds the {self._aggregator.max_update_bytes} bytes"
                f" that the uplink {self._aggregator.uplink} can need for this model"
            )
        if known is None or known.digest != message.digest or known.size != message.size:
            await self._announce(phone, message, replaces=known is not None)
        incoming = Incoming(message, self._durable[key], wanted=True)
        self._incoming[phone] = incoming
        if message.data:
            await self._take(phone, incoming, message.offset, message.data)
        else:
            await phone.send(Ack(message.round, incoming.durable))

    async def chunk(self, phone: PhoneConnection, message: UpdateChunk) -> None:
        """Take the next bytes of an update."""
        incoming = self._incoming.get(phone)
        if incoming is None:
            # The end of an update that was answered while its last chunks were on their way.
            return
        round_number = incoming.begin.round
        if not (incoming.wanted and self._wanted(round_number, phone.shard)):
            incoming.wanted = False
            self._waste(phone, round_number, len(message.data))
            return
        await self._take(phone, incoming, message.offset, message.data)

    async def _announce(self, phone: PhoneConnection, message: UpdateBegin, *, replaces: bool) -> None:
        key = (message.round, phone.shard)
        values = {"size": message.size, "digest": message.digest, "examples": message.examples}
        self._known[key] = StoredUpdate(*key, "receiving", message.size, message.digest, message.examples)
        self._durable[key] = 0
        self._ledger.entry(*key, "uplink").theory += self._aggregator.theory_bytes
        if replaces:
            self._waste(phone, message.round, self._durable[key])
            await self._commits.write(*drop_update(*key))
        if len(message.data) < message.size:
            # An update of one frame is announced and accepted in one transaction.
            await self._commits.write(put_update(*key, state="receiving", **values))  # type: ignore[arg-type]

    async def _take(self, phone: PhoneConnection, incoming: Incoming, offset: int, data: bytes) -> None:
        begin = incoming.begin
        key = (begin.round, phone.shard)
        known = min(max(incoming.durable - offset, 0), len(data))
        self._ledger.entry(*key, "uplink").resent += known
        if offset > incoming.durable:
            # The phone believes in bytes that this server does not have: it is told where to go on.
            await phone.send(Ack(begin.round, incoming.durable))
            return
        fresh = data[known:]
        if incoming.durable + len(fresh) < begin.size:
            if fresh:
                await self._commits.write(put_chunk(*key, incoming.durable, fresh))
                incoming.durable += len(fresh)
                self._durable[key] = incoming.durable
            await phone.send(Ack(begin.round, incoming.durable))
            return
        await self._complete(phone, incoming, fresh)

    async def _complete(self, phone: PhoneConnection, incoming: Incoming, last: bytes) -> None:
        loop = asyncio.get_running_loop()
        begin, key = incoming.begin, (incoming.begin.round, phone.shard)
        self._incoming.pop(phone, None)
        payload = last
        if incoming.durable:
            payload = await loop.run_in_executor(None, self._store.payload, *key) + last
        try:
            if blake2b(payload, digest_size=8).digest() != begin.digest:
                raise RefusedError(f"update of {len(payload)} bytes does not have the digest that was announced")
            async with self.folding:
                if not self._wanted(*key):
                    self._waste(phone, begin.round, len(payload))
                    await phone.send(Cancel(begin.round))
                    return
                await loop.run_in_executor(None, self._aggregator.add, *key, payload, begin.examples)
                self._known[key] = StoredUpdate(*key, "accepted", begin.size, begin.digest, begin.examples)
                # The write joins the queue before the machine hears of the update, so a round that closes on it
                # waits for it.
                durable = asyncio.ensure_future(
                    self._commits.write(
                        put_chunk(*key, incoming.durable, last),
                        put_update(
                            *key, state="accepted", size=begin.size, digest=begin.digest, examples=begin.examples
                        ),
                    )
                )
                self._accepted(*key)
        except (CodecError, RefusedError):
            self._waste(phone, begin.round, len(payload))
            del self._known[key], self._durable[key]
            await self._commits.write(*drop_update(*key))
            raise
        await durable
        await phone.send(Accepted(begin.round))

    def waste_unfinished(self, round_number: int, shard: int) -> str | None:
        """Count what a straggler had sent as wasted when its round closes; return its update's new state."""
        known = self._known.get((round_number, shard))
        if known is None or known.state != "receiving":
            return None
        self._ledger.entry(round_number, shard, "uplink").wasted += self._durable.get((round_number, shard), 0)
        return "cancelled"

    def _waste(self, phone: PhoneConnection, round_number: int, num_bytes: int) -> None:
        self._ledger.entry(round_number, phone.shard, "uplink").wasted += num_bytes
