"""The machine of one circle of a round: `(circle, event) -> (circle, actions)`, a table and nothing else.

Uploads arrive; if somebody is missing, those who are left tell the seeds that they have in common with the missing;
once all have told, a final list asks for shares of the survivors' own seeds, and the sum is opened.

    ARRIVING --all here, or UploadsOver and nobody missing--> OPENING --Opened--> SUMMED
       `--UploadsOver, somebody missing--> MENDING --all told of all who are gone--> OPENING
    ARRIVING, MENDING, OPENING --too few are left, or what they told is wrong--> FAILED

Nobody waits for a deadline where all needed answers are in. A phone that says nothing until the deadline of a list is
out of the next one while seeds are missing, and is replaced by others once only shares are. There is one final list:
what follows it has the same survivors. Where nothing is masked (threshold 0) the sum of those who came is opened at
once.

What restores a circle is on the disk before it is said or counted: uploads, lists, answers.
"""

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

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
            for list_ in self._current
            for holder in list_.recipients
            if (holder, list_.version) not in self.answered
        )

    @property
    def _current(self) -> tuple[SentList, ...]:
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


Step = tuple[Circle, tuple[CircleAction, ...]]


def _failed(circle: Circle) -> Step:
    return replace(circle, phase=CirclePhase.FAILED, opening=False), ()


def _arrived(circle: Circle, event: Arrived) -> Step:
    if event.shard not in circle.members:
        return circle, ()
    circle = replace(circle, arrived=circle.arrived | {event.shard}, lost=circle.lost - {event.shard})
    # Nothing is gained by waiting for other circles.
    return _uploads_over(circle, UploadsOver()) if len(circle.arrived) == len(circle.members) else (circle, ())


def _uploads_over(circle: Circle, event: UploadsOver) -> Step:
    if not circle.threshold:
        return _open(replace(circle, phase=CirclePhase.OPENING)) if circle.arrived else _failed(circle)
    if len(circle.arrived) < circle.least:
        # Nobody was told of a list: all of them may be asked again.
        return _failed(circle)
    if len(circle.arrived) == len(circle.members):
        return _final(circle, circle.arrived)
    there = circle.arrived - circle.lost
    # Whoever is away would be waited for; but where too few are there, it may come back.
    return _mend(circle, there if len(there) >= circle.least else circle.arrived)


def _mend(circle: Circle, alive: frozenset[int]) -> Step:
    """Ask those who are left for what they have in common with all who are gone, as far as it is not here."""
    gone = [member for member in circle.members if member not in alive]
    asked = tuple(
        (holder, frozenset(of for of in gone if (holder, of) not in circle.told))
        for holder in circle.members
        if holder in alive
    )
    list_ = SentList(len(circle.lists) + 1, False, alive, asked)
    return replace(circle, phase=CirclePhase.MENDING, lists=(*circle.lists, list_)), (
        SendList(list_, list_.recipients),
    )


def _settle_mending(circle: Circle) -> Step:
    """Go on if all have told; go on without those who have not and are away, if enough are left."""
    waiting = circle.waiting
    if not waiting:
        return _final(circle, circle.survivors)
    left = circle.survivors - (waiting & circle.lost)
    if left == circle.survivors or len(left) < circle.least:
        return circle, ()
    return _mend(circle, left)


def _final(circle: Circle, alive: frozenset[int]) -> Step:
    list_ = SentList(len(circle.lists) + 1, True, alive, ())
    # The list is empty until `_ask` says who is asked for whose share.
    return _ask(replace(circle, phase=CirclePhase.OPENING), list_)


def _ask(circle: Circle, list_: SentList) -> Step:
    """Ask for shares, in a final list, where those here and those to come are not enough."""
    alive = [member for member in circle.members if member in list_.alive]
    asked: dict[int, set[int]] = {}
    before = _asked_shares(circle)
    for index, of in enumerate(alive):
        # Each survivor's shares are asked of those who follow it, so that all are asked for as many.
        holders = [alive[(index + step) % len(alive)] for step in range(1, len(alive))]
        there = [holder for holder in holders if holder not in circle.lost and holder not in circle.at_fault]
        coming = sum(holder in before[of] or (holder, of) in circle.told for holder in there)
        here = sum((holder, of) in circle.told for holder in circle.lost - circle.at_fault)
        if here + coming >= circle.threshold and of not in circle.doubted:
            continue
        wanted = len(alive) if of in circle.doubted else circle.threshold + circle.spare - here - coming
        free = [holder for holder in there if holder not in before[of]][:wanted]
        if here + coming + len(free) < circle.threshold and not any(row.final for row in circle.lists):
            # Too few are there: who is away may come back before the deadline. Later it is asked when it does.
            free += [holder for holder in holders if holder in circle.lost and holder not in before[of]]
        for holder in free:
            asked.setdefault(holder, set()).add(of)
    if not asked:
        return circle, ()
    list_ = replace(list_, asked=tuple((holder, frozenset(asked[holder])) for holder in alive if holder in asked))
    return replace(circle, lists=(*circle.lists, list_)), (SendList(list_, list_.recipients),)


def _asked_shares(circle: Circle) -> Mapping[int, set[int]]:
    """Return for each member the holders that final lists have asked for its share."""
    holders: dict[int, set[int]] = {member: set() for member in circle.members}
    for list_ in circle.lists:
        if list_.final:
            for holder, asked in list_.asked:
                for of in asked:
                    holders[of].add(holder)
    return holders


def _ask_again(circle: Circle) -> Step:
    last = circle.lists[-1]
    return _ask(circle, SentList(last.version + 1, True, last.alive, ()))


def _enough(circle: Circle) -> bool:
    """Whether the shares here may give all own seeds: t of each, or all that will come where some are in doubt."""
    here = dict.fromkeys(circle.survivors, 0)
    for holder, of in circle.told:
        if of in here and holder not in circle.at_fault:
            here[of] += 1
    if min(here.values()) < circle.threshold:
        return False
    return not (circle.doubted and circle.waiting - circle.lost - circle.at_fault)


def _open(circle: Circle) -> Step:
    return replace(circle, opening=True), (Open(circle.survivors),)


def _settle_opening(circle: Circle) -> Step:
    if circle.opening:
        return circle, ()
    if _enough(circle):
        return _open(circle)
    # Where all who were asked are there and believed, what they were asked for is enough.
    return _ask_again(circle) if circle.lost or circle.at_fault or circle.doubted else (circle, ())


def _settle(circle: Circle) -> Step:
    return _settle_mending(circle) if circle.phase is CirclePhase.MENDING else _settle_opening(circle)


def _answered(circle: Circle, event: Answered) -> Step:
    asked = circle.asked(event.shard, event.version)
    if asked is None:
        return circle, ()
    told = circle.told | {(event.shard, of) for of in asked}
    answered = circle.answered | {(event.shard, event.version)}
    return _settle(replace(circle, answered=answered, told=told, lost=circle.lost - {event.shard}))


def _expired_mending(circle: Circle, event: Expired) -> Step:
    if event.version != circle.lists[-1].version:
        return circle, ()
    left = circle.survivors - circle.waiting
    return _mend(circle, left) if len(left) >= circle.least else _failed(circle)


def _expired_opening(circle: Circle, event: Expired) -> Step:
    if not circle.lists or event.version != circle.lists[-1].version or circle.opening:
        return circle, ()
    circle = replace(circle, lost=circle.lost | circle.waiting)
    circle, actions = _settle_opening(circle)
    return (circle, actions) if actions else _failed(circle)


def _note_gone(circle: Circle, event: Gone) -> Step:
    return replace(circle, lost=circle.lost | {event.shard}), ()


def _gone(circle: Circle, event: Gone) -> Step:
    return _settle(_note_gone(circle, event)[0])


def _note_back(circle: Circle, event: Back) -> Step:
    return replace(circle, lost=circle.lost - {event.shard}), ()


def _back(circle: Circle, event: Back) -> Step:
    unanswered = _unanswered(circle, {event.shard})
    circle, actions = _settle(_note_back(circle, event)[0])
    return circle, (*unanswered, *actions)


def _unanswered(circle: Circle, shards: Collection[int]) -> tuple[SendList, ...]:
    """Return the lists that still matter, to those of `shards` that have not answered them."""
    sends = []
    for list_ in circle._current:
        to = tuple(s for s in list_.recipients if s in shards and (s, list_.version) not in circle.answered)
        if to:
            sends.append(SendList(list_, to))
    return tuple(sends)


def _opened(circle: Circle, event: Opened) -> Step:
    circle = replace(circle, opening=False, at_fault=circle.at_fault | event.at_fault)
    if event.spoilt:
        return _failed(circle)
    if not event.lacking:
        return replace(circle, phase=CirclePhase.SUMMED), ()
    circle, actions = _ask_again(replace(circle, doubted=circle.doubted | event.lacking))
    if actions or circle.waiting - circle.lost:
        return circle, actions
    # All have told. Where there was a share to spare, either the phone itself lied or two of its neighbours did.
    told = [sum(holder_of[1] == of for holder_of in circle.told) for of in event.lacking]
    own = {of for of, shares in zip(event.lacking, told, strict=True) if shares > circle.threshold}
    return _failed(replace(circle, at_fault=circle.at_fault | own))


TABLE: Mapping[CirclePhase, Mapping[type, Callable[..., Step]]] = {
    CirclePhase.ARRIVING: {Arrived: _arrived, UploadsOver: _uploads_over, Gone: _note_gone, Back: _note_back},
    CirclePhase.MENDING: {Answered: _answered, Expired: _expired_mending, Gone: _gone, Back: _back},
    CirclePhase.OPENING: {
        Answered: _answered,
        Expired: _expired_opening,
        Opened: _opened,
        Gone: _gone,
        Back: _back,
    },
    CirclePhase.SUMMED: {},
    CirclePhase.FAILED: {},
}


def advance(circle: Circle, event: CircleEvent) -> Step:
    """Return the circle after `event` and what must be done now, in that order."""
    handler = TABLE[circle.phase].get(type(event))
    return handler(circle, event) if handler else (circle, ())


def resumed(circle: Circle) -> Step:
    """Return what a circle that the disk gave does first: its lists go out again, or its sum is opened again.

    Who has uploaded is heard of again too: a circle whose last upload was durable and whose list was not makes it now.
    """
    if circle.over:
        return circle, ()
    if circle.phase is CirclePhase.ARRIVING:
        complete = circle.members and len(circle.arrived) == len(circle.members)
        return _uploads_over(circle, UploadsOver()) if complete else (circle, ())
    again = _unanswered(circle, circle.members)
    settled, actions = _settle(circle)
    return settled, actions if settled.opening else (*again, *actions)
