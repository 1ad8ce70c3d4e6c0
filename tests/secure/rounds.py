"""A circle of phones and its server in one process: what tests of masked rounds are made of."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from hashlib import blake2b

import numpy as np

from featherfed.errors import OpeningError
from featherfed.secure.circles import least_of, threshold_of
from featherfed.secure.context import Context
from featherfed.secure.keys import PhoneKey, new_own_seed
from featherfed.secure.member import Member
from featherfed.secure.opening import Opened, Upload, open_circle
from featherfed.secure.streams import Residues, dtype_of
from featherfed.secure.told import Told
from featherfed.server.rounds import circle as machine
from featherfed.server.rounds.circle import Circle, SendList
from featherfed.server.rounds.circle_machine import advance, resumed


@cache
def key_of(shard: int) -> PhoneKey:
    """Return the key of a shard in all tests: X25519 is most of what they would compute again and again."""
    return PhoneKey(blake2b(b"phone %d" % shard, digest_size=32).digest())


def context_of(members: Sequence[int], *, bits: int = 4, threshold: int | None = None, **other: object) -> Context:
    size = len(members)
    values: dict[str, object] = {
        "run": "a run", "round_number": 3, "attempt": 0, "circle": 0, "uplink": f"grid({bits})", "bits": bits,
        "steps": b"\x80", "clip": 1.0, "model": bytes(8), "members": tuple(members),
        "keys": tuple(key_of(shard).public for shard in members),
        "threshold": threshold_of(size) if threshold is None else threshold,
        "least": least_of(size) if threshold is None else threshold + 1,
    }  # fmt: skip
    return Context(**(values | other))  # type: ignore[arg-type]


def update_of(shard: int, *, bits: int = 4, count: int = 50) -> Residues:
    return np.random.default_rng(shard).integers(0, 1 << bits, count).astype(dtype_of(bits))


def sum_of(updates: Iterable[Residues], *, bits: int = 4) -> list[int]:
    total = sum(update.astype(np.int64) for update in updates)
    return (np.asarray(total) % (1 << bits)).tolist()


class Phones:
    """The phones of a circle; each keeps what it has told as bytes, and is a new `Member` for each message."""

    def __init__(self, context: Context, *, bits: int = 4, count: int = 50) -> None:
        self.context = context
        self.updates = {shard: update_of(shard, bits=bits, count=count) for shard in context.members}
        self.disk = {shard: self._begin(shard).to_bytes() for shard in context.members}

    def _begin(self, shard: int) -> Told:
        context, own_seed = self.context, new_own_seed()
        if context.threshold >= threshold_of(len(context.members)):
            return Member.begin(key_of(shard), own_seed, context, shard, least_circle=3).told
        # No phone would take part in such a circle.
        return Told(
            round_number=context.round_number, attempt=context.attempt, digest=context.digest, own_seed=own_seed
        )

    def member(self, shard: int) -> Member:
        return Member(key_of(shard), self.context, shard, Told.from_bytes(self.disk[shard]))

    def upload(self, shard: int) -> Upload:
        member = self.member(shard)
        head, word, residues = member.mask(1, self.updates[shard])
        self.disk[shard] = member.told.to_bytes()
        return Upload(head, word, residues)

    def answer(self, shard: int, list_: machine.SentList) -> bytes:
        member = self.member(shard)
        data = member.answer(list_.version, list_.final, list_.alive, list_.asked_of(shard))
        self.disk[shard] = member.told.to_bytes()
        return data


Reaches = Callable[[int, machine.SentList], bool]


class Server:
    """One circle of a server. `reaches` says whether a phone hears a list and answers: who does not is silent for good.

    `killed`: after each event that it has stored, and before it says anything, it is killed and comes back.
    """

    def __init__(
        self,
        phones: Phones,
        reaches: Callable[[int, machine.SentList], bool] = lambda *_: True,
        *,
        killed: bool = False,
    ) -> None:
        self.phones, self.context, self.reaches, self.killed = phones, phones.context, reaches, killed
        self.circle = Circle(members=self.context.members, threshold=self.context.threshold, least=self.context.least)
        self.uploads: dict[int, Upload] = {}
        self.answers: dict[tuple[int, int], bytes] = {}
        self.opened: Opened | None = None
        self.expiries = 0

    def arrive(self, shard: int) -> None:
        self.uploads[shard] = self.phones.upload(shard)
        self.post(machine.Arrived(shard))

    def run(self) -> None:
        """Wait for no more uploads, and let deadlines come where nothing else does."""
        self.post(machine.UploadsOver())
        while not self.circle.over:
            self.expiries += 1
            self.post(machine.Expired(self.circle.lists[-1].version))

    def post(self, event: machine.CircleEvent) -> None:
        """Handle an event and all that follow from it, in their order."""
        events = deque([event])
        while events:
            self.circle, actions = advance(self.circle, events.popleft())
            back = self._from_the_disk()
            none = frozenset[int]()
            assert back == replace(self.circle, lost=none, at_fault=none, doubted=none, opening=False)
            if self.killed:
                self.circle, actions = resumed(back)
            for action in actions:
                if not isinstance(action, SendList):
                    events.append(self.open(action.survivors))
                    continue
                for shard in action.to:
                    if self.reaches(shard, action.list_):
                        self.answers[shard, action.list_.version] = self.phones.answer(shard, action.list_)
                        events.append(machine.Answered(shard, action.list_.version))

    def _from_the_disk(self) -> Circle:
        circle = self.circle
        rows = [machine.SentList.from_bytes(row.to_bytes()) for row in circle.lists]
        return Circle.restored(
            members=circle.members, threshold=circle.threshold, least=circle.least, arrived=circle.arrived, lists=rows,
            answered=circle.answered, ended=circle.phase if circle.over else None,
        )  # fmt: skip

    def open(self, survivors: frozenset[int]) -> machine.Opened:
        seeds, shares = self.circle.secrets(self.answers)
        try:
            self.opened = open_circle(self.context, self.uploads, survivors, seeds, shares)
        except OpeningError as error:
            return machine.Opened(error.at_fault, error.lacking, not error.lacking)
        return machine.Opened(self.opened.liars)
