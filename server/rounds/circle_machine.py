"""The machine of one circle of a round: `(circle, event) -> (circle, actions)`, a table and nothing else.

Uploads arrive; if somebody is missing, those who are left tell the seeds that they have in common with the missing;
once all have told, a final list asks for shares of the survivors' own seeds, and the sum is opened.

    ARRIVING --all here, or UploadsOver and nobody missing--> OPENING --Opened--> SUMMED
       `--UploadsOver, somebody missing--> MENDING --all told of all who are gone--> OPENING
    ARRIVING, MENDING, OPENING --too few are left, or what they told is wrong--> FAILED

Nobody waits for a deadline where all needed answers are in. A phone that says nothing until the deadline of a list is
out of the next one while seeds are missing, and is replaced by others once only shares are. There is one final set of
survivors: a final list after the first asks others for shares of it. Where nothing is masked (threshold 0) the sum of
those who came is opened at once.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from featherfed.server.rounds.circle import (
    Answered,
    Arrived,
    Back,
    Circle,
    CircleAction,
    CircleEvent,
    CirclePhase,
    Expired,
    Gone,
    Open,
    Opened,
    SendList,
    SentList,
    UploadsOver,
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
    if not circle.lists or event.version != circle.lists[-1].version:
        return circle, ()
    circle = replace(circle, lost=circle.lost | circle.waiting)
    if circle.opening:
        # What is here may do; if it does not, who is silent is not waited for again.
        return circle, ()
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
    for list_ in circle.current:
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
    # Also where a sum is opened: if that fails, it is the answers to these lists that are waited for.
    return settled, (*again, *actions)
