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
        advanced: Callable[[int, int, int, int], None],
    ) -> None:
        """`wanted(round, shard)` says whether an update still counts; `accepted(round, shard)` is told that it does.

        `advanced(shard, round, durable, size)` is told how far each one has come.
        """
        self._aggregator = aggregator
        self._store = store
        self._commits = commits
        self._ledger = ledger
        self._wanted = wanted
        self._accepted = accepted
        self._advanced = advanced
        self._known: dict[tuple[int, int], StoredUpdate] = {}
        self._durable: dict[tuple[int, int], int] = {}
        self._incoming: dict[PhoneConnection, Incoming] = {}
        self.folding = asyncio.Lock()
        """Held while the sum changes; whoever closes a round takes it, so that nothing slips in between."""

    def restore(self, round_number: int) -> None:
        """Fold again what the disk has of a round that was open."""
        for update in self._store.updates(round_number):
            key = (round_number, update.shard)
            payload = self._store.payload(*key)
            self._known[key] = update
            self._durable[key] = len(payload)
            if update.state == "accepted":
                self._aggregator.add(round_number, update.shard, payload, update.examples)

    def forget(self, connection: PhoneConnection) -> None:
        """Drop what a connection had under way; what is durable stays for the next one."""
        self._incoming.pop(connection, None)

    def forget_round(self, round_number: int) -> None:
        """Drop what is known of a closed round: for late copies, the store remembers who was accepted."""
        self._durable = {key: size for key, size in self._durable.items() if key[0] > round_number}
        self._known = {key: update for key, update in self._known.items() if key[0] > round_number}

    async def begin(self, phone: PhoneConnection, message: UpdateBegin) -> None:
        """Take the first bytes of an update, or say how many of them are durable."""
        self._incoming.pop(phone, None)
        key = (message.round, phone.shard)
        known = self._known.get(key)
        if known is None and not self._wanted(*key):
            # Perhaps its round was closed before this server was started, or long ago.
            known = await asyncio.get_running_loop().run_in_executor(None, self._store.update, *key)
        if known and known.state == "accepted":
            if known.digest != message.digest:
                raise RefusedError(f"round {message.round} already has another update of phone {phone.name!r}")
            phone.traffic("uplink").resent += len(message.data)
            await phone.send(Accepted(message.round))
            return
        if not self._wanted(*key):
            phone.traffic("uplink").wasted += len(message.data)
            self._incoming[phone] = Incoming(message, 0, wanted=False)
            await phone.send(Cancel(message.round))
            return
        if message.size > self._aggregator.max_update_bytes:
            raise RefusedError(
                f"update of {message.size} bytes exceeds the {self._aggregator.max_update_bytes} bytes"
                f" that the uplink {self._aggregator.uplink} can need for this model"
            )
        if message.examples > self._aggregator.max_examples:
            raise RefusedError(
                f"update claims {message.examples} examples; a phone of this run can have"
                f" {self._aggregator.max_examples} (--max-examples)"
            )
        if known is None or known.digest != message.digest or known.size != message.size:
            await self._announce(phone, message, replaces=known is not None)
        incoming = Incoming(message, self._durable[key], wanted=True)
        self._incoming[phone] = incoming
        self._advanced(phone.shard, message.round, incoming.durable, message.size)
        if message.data:
            await self._take(phone, incoming, message.offset, message.data)
        else:
            await phone.send(Ack(message.round, incoming.durable))

    async def chunk(self, phone: PhoneConnection, message: UpdateChunk) -> None:
        """Take the next bytes of an update."""
        incoming = self._incoming.get(phone)
        if incoming is None:
            # The end of an update that was answered, as accepted before, while its last chunks were on their way.
            phone.traffic("uplink").resent += len(message.data)
            return
        round_number = incoming.begin.round
        if not (incoming.wanted and self._wanted(round_number, phone.shard)):
            incoming.wanted = False
            phone.traffic("uplink").wasted += len(message.data)
            return
        await self._take(phone, incoming, message.offset, message.data)

    async def _announce(self, phone: PhoneConnection, message: UpdateBegin, *, replaces: bool) -> None:
        key = (message.round, phone.shard)
        update = StoredUpdate(*key, "receiving", message.size, message.digest, message.examples)
        if replaces:
            phone.traffic("uplink").wasted += self._durable[key]
            await self._commits.write(*drop_update(*key))
        self._known[key] = update
        self._durable[key] = 0
        phone.traffic("uplink").theory += self._aggregator.theory_bytes
        if len(message.data) < message.size:
            # An update of one frame is announced and accepted in one transaction.
            await self._commits.write(put_update(update))

    async def _take(self, phone: PhoneConnection, incoming: Incoming, offset: int, data: bytes) -> None:
        begin = incoming.begin
        key = (begin.round, phone.shard)
        known = min(max(incoming.durable - offset, 0), len(data))
        phone.traffic("uplink").resent += known
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
                self._advanced(phone.shard, begin.round, incoming.durable, begin.size)
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
                    phone.traffic("uplink").wasted += len(payload)
                    await phone.send(Cancel(begin.round))
                    return
                await loop.run_in_executor(None, self._aggregator.add, *key, payload, begin.examples)
                accepted = StoredUpdate(*key, "accepted", begin.size, begin.digest, begin.examples)
                self._known[key] = accepted
                # The write joins the queue before the machine hears of the update, so a round that closes on it
                # waits for it.
                durable = asyncio.ensure_future(
                    self._commits.write(put_chunk(*key, incoming.durable, last), put_update(accepted))
                )
                self._accepted(*key)
        except (CodecError, RefusedError):
            phone.traffic("uplink").wasted += len(payload)
            del self._known[key], self._durable[key]
            await self._commits.write(*drop_update(*key))
            raise
        await durable
        await phone.send(Accepted(begin.round))

    def waste_unfinished(self, round_number: int, shard: int) -> None:
        """Count what a straggler had sent as wasted: its round closes, or goes on without it."""
        known = self._known.pop((round_number, shard), None)
        durable = self._durable.pop((round_number, shard), 0)
        if known is not None and known.state == "receiving":
            self._ledger.entry(round_number, shard, "uplink").wasted += durable
