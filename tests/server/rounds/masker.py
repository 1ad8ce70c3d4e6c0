"""A phone of a masked round that a test leads step by step: real keys, masks and answers over a real connection."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from featherfed.codec.pipeline import Pipeline
from featherfed.codec.summable import Summable
from featherfed.edge_client.learner import fingerprint_of
from featherfed.initial_weights import InitialWeights, digest_of, drawn
from featherfed.randomness import RoundKey
from featherfed.secure.context import KEY_BYTES, Context
from featherfed.secure.keys import PhoneKey, new_own_seed
from featherfed.secure.member import Member
from featherfed.secure.told import from_bits
from featherfed.wire.messages import (
    Ack,
    Circle,
    Key,
    Shares,
    Survivors,
    UpdateBegin,
    UpdateChunk,
)  # fmt: skip
from tests.server.peer import Peer, digest, peer


class Masker(Peer):
    """One connection of a phone; `key` and `told` are what its disk would keep."""

    def __init__(self, connection: Any, shard: int, key: PhoneKey | None = None) -> None:
        super().__init__(connection)
        self.shard = shard
        self.key = key or PhoneKey.new()
        self.keys: dict[int, bytes] = {}
        self.member: Member | None = None
        self.context: Context | None = None
        self.masked = b""

    async def enter(self, shards: int, *, name: str = "") -> None:
        """Join the run and say the key."""
        await self.join(name or f"p{self.shard}", shard=self.shard, shards=shards)
        await self.send(Key(self.key.public))

    async def circle(self) -> Circle:
        """Return the circle of the next attempt."""
        message = await self.receive_until(Circle)
        assert isinstance(message, Circle)
        new = [each for each in message.members if each not in self.keys and each != self.shard]
        assert len(message.keys) == KEY_BYTES * len(new), "the keys of those that it was not told yet"
        for place, member in enumerate(new):
            self.keys[member] = message.keys[place * KEY_BYTES : (place + 1) * KEY_BYTES]
        return message

    def mask(self, circle: Circle, *, model: bytes | None = None) -> bytes:
        """Make the update of an attempt: a shard's own constant, masked among the circle's members."""
        welcome = self.welcome
        assert welcome is not None
        layout = fingerprint_of(welcome).layout
        uplink = Pipeline.parse(welcome.uplink)
        summable = Summable(uplink, layout, clip=welcome.clip)
        key = RoundKey(welcome.seed, circle.round, self.shard)
        change = np.full(uplink.space(layout, key).size, 0.01 * (self.shard + 1), np.float32)
        made = summable.encode(change, key, steps=circle.steps, slice_=circle.slice, slices=circle.slices)
        if model is None:
            initial = InitialWeights.of_wire(welcome.initial, welcome.initial_digest)
            model = digest_of(drawn(initial.draws, layout, welcome.seed))
        keys = tuple(self.key.public if each == self.shard else self.keys[each] for each in circle.members)
        self.context = Context(
            run=welcome.run, round_number=circle.round, attempt=circle.attempt, circle=circle.circle,
            slice_=circle.slice, slices=circle.slices, threshold=circle.threshold, least=circle.least,
            uplink=str(uplink), bits=summable.bits, steps=circle.steps, clip=float(welcome.clip), model=model,
            members=tuple(circle.members), keys=keys,
            noise=(float(welcome.noise), float(welcome.colluding)) if welcome.noise else None,
        )  # fmt: skip
        before = self.member.told if self.member else None
        self.member = Member.begin(self.key, new_own_seed(), self.context, self.shard, before=before)
        head, word, residues = self.member.mask(1, made.residues)
        self.masked = head + word.to_bytes(4, "little") + summable.pack(residues)
        return self.masked

    async def send_update(self, circle: Circle, payload: bytes | None = None, *, upto: int | None = None) -> None:
        """Send an update of an attempt, or only its first `upto` bytes; returns when what is sent is durable."""
        data = self.mask(circle) if payload is None else payload
        end = len(data) if upto is None else upto
        first = data[: min(16384, end)]
        await self.send(UpdateBegin(circle.round, len(data), digest(data), 1, 0, first, circle.attempt))
        for offset in range(len(first), end, 16384):
            await self.send(UpdateChunk(offset, data[offset : min(offset + 16384, end)]))
        while True:
            ack = await self.receive_until(Ack)
            if ack.offset == end:  # type: ignore[union-attr]
                return

    async def list_(self) -> Survivors:
        """Return the next list."""
        message = await self.receive_until(Survivors)
        assert isinstance(message, Survivors)
        return message

    def answer(self, survivors: Survivors) -> Shares:
        """Return the true answer to a list."""
        assert self.member is not None and self.context is not None
        members = self.context.members
        alive, asked = from_bits(members, survivors.alive), from_bits(members, survivors.asked)
        data = self.member.answer(survivors.version, survivors.final, alive, asked)
        return Shares(survivors.round, survivors.attempt, survivors.version, data)


@contextlib.asynccontextmanager
async def masker(address: str, shard: int, key: PhoneKey | None = None) -> AsyncIterator[Masker]:
    """A connection that has said nothing yet."""
    async with peer(address) as plain:
        yield Masker(plain.connection, shard, key)


@contextlib.asynccontextmanager
async def maskers(address: str, count: int) -> AsyncIterator[list[Masker]]:
    """So many phones that have joined."""
    async with contextlib.AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(masker(address, shard)) for shard in range(count)]
        for phone in phones:
            await phone.enter(count)
        yield phones
