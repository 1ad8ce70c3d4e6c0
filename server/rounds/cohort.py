"""What a round machine knows of its phones, and whom its rule chooses of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

from featherfed.rules.checked import chosen
from featherfed.rules.select import PhoneFacts, Select, SelectKey
from featherfed.server.rounds.events import Accept, Action, Assign, Event, Joined, OpenRound

Facts = Mapping[int, PhoneFacts]
"""By shard; kept only for a selection that looks at them."""
NOTHING_KNOWN: Facts = MappingProxyType({})


class Chooses(Protocol):
    """A machine's rules, as far as they choose."""

    @property
    def select(self) -> Select:
        """Whom a round asks."""


class MachineState(Protocol):
    """What both round machines have."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def rules(self) -> Chooses:
        """What never changes during a run."""

    @property
    def facts(self) -> Facts:
        """What is known of its phones."""

    @property
    def round_number(self) -> int:
        """The round that is played."""

    def wants(self, round_number: int, shard: int) -> bool:
        """Return whether an update counts now."""


S = TypeVar("S", bound=MachineState)


@lru_cache(maxsize=1 << 16)
def _unknown(shard: int) -> PhoneFacts:
    return PhoneFacts(shard)


def choose_cohort(select: Select, facts: Facts, present: Iterable[int], size: int, key: SelectKey) -> tuple[int, ...]:
    """Return at most `size` of the present shards, in rising order; raises `ProblemError` for a faulty selection."""
    return chosen(select, [facts.get(shard) or _unknown(shard) for shard in sorted(present)], size, key)


def learned(facts: Facts, shards: Iterable[int], **known: Any) -> Facts:
    """Return what is known once these fields of these shards are."""
    news = {shard: replace(facts.get(shard) or _unknown(shard), **known) for shard in shards}
    return MappingProxyType({**facts, **news}) if news else facts


def handled(
    handler: Callable[[S, Any], tuple[S, tuple[Action, ...]]] | None, state: S, event: Event
) -> tuple[S, tuple[Action, ...]]:
    """Return what a machine's handler makes of an event, with what is known of the phones after it.

    Without a handler the event does not matter any more.
    """
    if handler is None:
        return state, ()
    if not state.rules.select.uses_facts:
        return handler(state, event)
    if isinstance(event, Joined | Accept):
        state = replace(state, facts=facts_after(state.facts, event, state.wants))
    state, actions = handler(state, event)
    return replace(state, facts=facts_of_asked(state.facts, state.round_number, actions)), actions


def facts_after(facts: Facts, event: Joined | Accept, wants: Callable[[int, int], bool]) -> Facts:
    """Return what is known of the phones once one has come, or an update that counts."""
    if isinstance(event, Joined):
        return learned(facts, [event.shard], link=event.link, bytes_per_s=event.bytes_per_s)
    if not wants(event.round_number, event.shard):
        return facts
    known = {"examples": event.examples, "seconds": event.seconds, "last_counted": event.round_number}
    return learned(facts, [event.shard], **known)


def facts_of_asked(facts: Facts, round_number: int, actions: tuple[Action, ...]) -> Facts:
    """Return what is known of the phones once these are asked."""
    asked: list[int] = []
    for action in actions:
        if isinstance(action, OpenRound):
            asked += action.cohort
        elif isinstance(action, Assign):
            asked.append(action.shard)
    return learned(facts, asked, last_asked=round_number)
