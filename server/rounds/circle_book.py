"""What phones of a circle are told of each other, and what their sums are opened with; and what gateways are told."""

import asyncio
import json

from msgspec import structs

from featherfed.errors import RefusedError
from featherfed.initial_weights import digest_of
from featherfed.secure.context import Context
from featherfed.server.circle_plan import clip_of
from featherfed.server.config import RunConfig
from featherfed.server.model.circle_sums import CircleSums
from featherfed.server.model.run_model import RunModel
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.machines import State
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.storage.circle_rows import keys, put_key
from featherfed.server.storage.store import Statement, Store, put_value
from featherfed.wire.messages import Circle

LIVES = "lives"
MOST_LIVES = 255


class CircleBook:
    """The public keys of a run's phones, and the circles of its rounds as messages."""

    def __init__(self, config: RunConfig, run: str, model: RunModel, store: Store) -> None:
        self._config, self._run, self._model = config, run, model
        self._keys = keys(store)
        self._lives = {int(shard): life for shard, life in json.loads(store.values().get(LIVES, "{}")).items()}
        """By gateway: how many of its lives have ended with its memory."""
        self._told: dict[PhoneConnection, set[int]] = {}
        """Whose keys a connection has been told."""
        self.kept: asyncio.Future[None] | None = None
        """Done when what phones are told of their circles, or that these are over, is on the disk."""

    @property
    def sums(self) -> CircleSums:
        """The sum of the open round."""
        sums = self._model.sum.circles
        assert sums is not None, "of a run that sums circles"
        return sums

    def learn(self, phone: PhoneConnection, public: bytes) -> list[Statement]:
        """Note the key of a phone; return what keeps it, if it is new. Raises `RefusedError` for another one."""
        known = self._keys.get(phone.shard)
        if known == public:
            return []
        if known is not None:
            raise RefusedError(
                f"shard {phone.shard} has another key in this run: its phone has lost its own (--state-dir keeps it)"
            )
        if public in self._keys.values():
            raise RefusedError("another shard of this run has the same key")
        self._keys[phone.shard] = public
        return [put_key(phone.shard, public)]

    def moved(self, gateway: int) -> Statement:
        """Note that a gateway has come without its memory; return what keeps that."""
        self._lives[gateway] = min(self._lives.get(gateway, 0) + 1, MOST_LIVES)
        return put_value(LIVES, json.dumps(self._lives))

    def for_gateway(self, gateway: int) -> tuple[bytes, int]:
        """Return the steps of the open round, and the life that a gateway is in; nothing where no circles are summed.

        It only rises, also where gateways have gateways: whoever has lost its memory knows no other's lives.
        """
        if self._model.sum.circles is None or not self._config.gateways:
            return b"", 0
        return self.sums.steps, self.sums.life * (MOST_LIVES + 1) + self._lives.get(gateway, 0)

    def message(self, shard: int, state: State) -> Circle | None:
        """Return the circle of a phone in this attempt; `with_keys` makes it one that can be sent."""
        if not isinstance(state, SummedState) or (number := state.place(shard)) is None:
            return None
        circle, sent = state.circles[number], self.sums.slice_of(number)
        return Circle(
            state.round_number, state.told_attempt, number, sent.number, sent.of, circle.threshold, circle.least,
            self.sums.steps, list(circle.members) if circle.threshold else [],
        )  # fmt: skip

    def with_keys(self, phone: PhoneConnection, circle: Circle) -> Circle:
        """Return a circle with the keys that a connection was not told yet: it is sent now, or never."""
        told = self._told.setdefault(phone, {phone.shard})
        new = b"".join(self._keys[each] for each in circle.members if each not in told)
        told.update(circle.members)
        return structs.replace(circle, keys=new)

    def forget(self, phone: PhoneConnection) -> None:
        """Forget what a connection was told: it is over."""
        self._told.pop(phone, None)

    def context(self, state: SummedState, number: int) -> Context:
        """Return what the keys of a circle hang on; reads the whole model, and is for a thread."""
        circle, sent, sums = state.circles[number], self.sums.slice_of(number), self.sums
        summable = sums.uplink.at(state.round_number)
        return Context(
            run=self._run, round_number=state.round_number, attempt=state.told_attempt, circle=number,
            slice_=sent.number, slices=sent.of, threshold=circle.threshold, least=circle.least,
            uplink=str(summable.pipeline),
            bits=summable.bits, steps=sums.steps, clip=float(clip_of(self._config)),
            model=digest_of(self._model.versions.view) if circle.threshold else b"", members=circle.members,
            keys=tuple(self._keys[each] for each in circle.members) if circle.threshold else (),
            noise=None if sums.promise is None else sums.promise.numbers,
        )  # fmt: skip
