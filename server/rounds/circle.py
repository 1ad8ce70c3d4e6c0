"""One circle of a round: where it stands, what it hears and what it says. `circle_machine.py` decides what follows.

What restores a circle is on the disk before it is said or counted: uploads, lists, answers.
"""

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import msgpack

SECRET_BYTES = 16
Secrets = dict[tuple[int, int], bytes]
"""By (holder, of): what a holder knows of another member."""


class CirclePhase(enum.Enum):
    """What a circle is doing."""

    ARRIVING = "arriving"
    MENDING = "mending"
    OPENING = "opening"
    SUMMED = "summed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SentList:
    """A list of survivors as the server sent it: to each recipient with the shards of whom it is asked."""

    version: int
    final: bool
    alive: frozenset[int]
    asked: tuple[tuple[int, frozenset[int]], ...]

    def asked_of(self, shard: int) -> frozenset[int]:
        """Return of whom this shard is asked; nobody if the list is not for it."""
        return next((of for holder, of in self.asked if holder == shard), frozenset())

    @property
    def recipients(self) -> tuple[int, ...]:
        """To whom the list goes."""
        return tuple(holder for holder, _ in self.asked)

    def to_bytes(self) -> bytes:
        """Return the row that is durable before the list is sent."""
        asked = [[holder, sorted(of)] for holder, of in self.asked]
        packed: bytes = msgpack.packb([self.version, self.final, sorted(self.alive), asked])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "SentList":
        """Return the list that `to_bytes` gave."""
        version, final, alive, asked = msgpack.unpackb(data)
        return cls(version, final, frozenset(alive), tuple((holder, frozenset(of)) for holder, of in asked))


@dataclass(frozen=True, slots=True)
class Arrived:
    """A member's upload is whole and durable."""

    shard: int


@dataclass(frozen=True, slots=True)
class UploadsOver:
    """The round waits for no more uploads."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a member was asked in a list is durable."""

    shard: int
    version: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Time is up for the answers to a list."""

    version: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A member is not there and has been away for longer than the grace time, or was closed for a fault."""

    shard: int


@dataclass(frozen=True, slots=True)
class Back:
    """A member is connected again: it hears what it has not answered."""

    shard: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of `Open`: nothing is lacking and not spoilt: the sum is there.

    `lacking` are those whose own seeds the shares did not give, `at_fault` who told wrong shares. `spoilt`: all seeds
    were found, and the sum is none.
    """

    at_fault: frozenset[int] = frozenset()
    lacking: frozenset[int] = frozenset()
    spoilt: bool = False


@dataclass(frozen=True, slots=True)
class SendList:
    """Send a list, once it is durable, to some of its recipients; its deadline runs from now if it is new."""

    list_: SentList
    to: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Open:
    """Take the masks off the survivors' sum, then report `Opened`."""

    survivors: frozenset[int]


CircleEvent = Arrived | UploadsOver | Answered | Expired | Gone | Back | Opened
CircleAction = SendList | Open


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """Where a circle stands in one attempt of one round."""

    members: tuple[int, ...]
    threshold: int
    """How many shares give an own seed; 0: nothing is masked."""
    least: int
    """Fewer survivors give no sum."""
    spare: int = 1
    """How many shares above the threshold are asked for at first: for who is silent, and to find a liar."""
    phase: CirclePhase = CirclePhase.ARRIVING
    arrived: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    """Who is not there, and is not waited for where others will do."""
    lists: tuple[SentList, ...] = ()
    answered: frozenset[tuple[int, int]] = frozenset()
    """(shard, version) of each answer that is stored."""
    told: frozenset[tuple[int, int]] = frozenset()
    """(holder, of) whose secret is stored: a pair seed of who is gone, a share of a survivor."""
    at_fault: frozenset[int] = frozenset()
    """Who told wrong shares: theirs do not count."""
    doubted: frozenset[int] = frozenset()
    """Whose shares gave no seed: all others are asked for theirs."""
    opening: bool = False
    """Whether `Open` is being carried out."""

    @property
    def survivors(self) -> frozenset[int]:
        """Who is in the last list; before there is one, whose upload is here."""
        return self.lists[-1].alive if self.lists else self.arrived

    @property
    def gone(self) -> frozenset[int]:
        """Whose masks must come off because they are not in the last list."""
        return frozenset(self.members) - self.survivors

    @property
    def spent(self) -> frozenset[int]:
        """Who was in a final list: asked for nothing more in this round, summed or not."""
        return self.lists[-1].alive if self.lists and self.lists[-1].final else frozenset()

    @property
    def over(self) -> bool:
        """Whether nothing more happens here."""
        return self.phase in (CirclePhase.SUMMED, CirclePhase.FAILED)

    @property
    def waiting(self) -> frozenset[int]:
        """Of whom an answer to a list that still matters is outstanding."""
        return frozenset(
            holder
            for list_ in self.current
            for holder in list_.recipients
            if (holder, list_.version) not in self.answered
        )

    @property
    def current(self) -> tuple[SentList, ...]:
        """The lists whose answers still matter: all final ones, else the last."""
        if self.over or not self.lists:
            return ()
        return tuple(list_ for list_ in self.lists if list_.final) or self.lists[-1:]

    def asked(self, shard: int, version: int) -> tuple[int, ...] | None:
        """Return of whom a list asked a shard, in the order of the answer; None if it did not go to it.

        An answer has 16 bytes for each.
        """
        of = next((list_.asked_of(shard) for list_ in self.lists if list_.version == version), frozenset())
        return tuple(member for member in self.members if member in of) or None

    def secrets(self, answers: Mapping[tuple[int, int], bytes]) -> tuple[Secrets, Secrets]:
        """Return the pair seeds by (survivor, gone) and the shares by (holder, survivor) of stored answers.

        `answers` are by (shard, version), as long as what they were asked for.
        """
        seeds: Secrets = {}
        shares: Secrets = {}
        for (shard, version), data in answers.items():
            into = shares if self.lists[version - 1].final else seeds
            for place, of in enumerate(self.asked(shard, version) or ()):
                into[shard, of] = data[SECRET_BYTES * place : SECRET_BYTES * (place + 1)]
        return seeds, shares

    @classmethod
    def restored(
        cls,
        *,
        members: tuple[int, ...],
        threshold: int,
        least: int,
        spare: int = 1,
        arrived: Collection[int],
        lists: Iterable[SentList],
        answered: Iterable[tuple[int, int]],
        ended: CirclePhase | None = None,
    ) -> "Circle":
        """Return the circle that the disk has: uploads, lists, (shard, version) of answers, and how it ended if it has.

        `resumed` says what to do next. Who is away is not known until it is told again.
        """
        rows, answers = tuple(lists), frozenset(answered)
        told = frozenset((shard, of) for shard, version in answers for of in rows[version - 1].asked_of(shard))
        going_on = (CirclePhase.OPENING if rows[-1].final else CirclePhase.MENDING) if rows else CirclePhase.ARRIVING
        return cls(
            members=members,
            threshold=threshold,
            least=least,
            spare=spare,
            phase=ended or going_on,
            arrived=frozenset(arrived),
            lists=rows,
            answered=answers,
            told=told,
        )
