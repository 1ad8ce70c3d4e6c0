"""The circles of an open round as the disk has them, of all of its attempts."""

from collections.abc import Collection
from dataclasses import dataclass

from featherfed.secure.circles import threshold_of
from featherfed.server.circle_plan import CirclePlan
from featherfed.server.rounds.circle import Circle, CirclePhase, SentList
from featherfed.server.storage import circle_rows
from featherfed.server.storage.store import Store


@dataclass(frozen=True, slots=True)
class StoredCircles:
    """By attempt; `answers` are what phones have told, by attempt, shard and version.

    `over` are the attempts that take no more uploads.
    """

    attempts: dict[int, tuple[Circle, ...]]
    over: frozenset[int]
    answers: dict[tuple[int, int, int], bytes]

    @classmethod
    def read(cls, store: Store, round_number: int, here: Collection[int], *, plan: CirclePlan) -> "StoredCircles":
        """Return what is stored of a round of a plan; `here` are the shards whose whole update is on the disk."""
        lists, answers = circle_rows.lists(store, round_number), circle_rows.shares(store, round_number)
        attempts: dict[int, tuple[Circle, ...]] = {}
        over: set[int] = set()
        for row in circle_rows.circles(store, round_number):
            if row.state == "over":
                over.add(row.attempt)
            members = row.members
            sent = [SentList.from_bytes(data) for data in lists.get((row.attempt, row.circle), [])]
            answered = [
                (shard, version)
                for attempt, shard, version in answers
                if attempt == row.attempt and shard in members and version <= len(sent)
            ]
            circle = Circle.restored(
                members=members,
                threshold=threshold_of(len(members)) if plan.masked else 0,
                least=plan.survivors(len(members)),
                # Whoever is here may also have come in a later attempt.
                arrived=row.counted or [shard for shard in members if shard in here],
                lists=sent,
                answered=answered,
                ended=CirclePhase.SUMMED if row.state == "summed" else None,
            )
            attempts[row.attempt] = (*attempts.get(row.attempt, ()), circle)
        return cls(attempts, frozenset(over), answers)
