"""The asynchronous run (FedBuff, Nguyen et al. 2022) as a table: nobody waits for the slowest phone of a cohort.

The words are those of the round machine, whose events and actions it shares. Round r fills the buffer that becomes
version r; a task of round r trains version r − 1. At most `cohort_size` phones are busy at a time; whoever delivers
makes room for another, and K updates close the buffer, from whatever rounds they are.

    GATHERING --enough phones--> OPEN --K updates, or deadline with enough--> CLOSING --Closed--> OPEN … --last--> DONE
                                   `--deadline with too few--> OPEN (all asked anew) … --too often--> PAUSED
    any phase --Stop--> PAUSED

Where this departs from the paper: an update is keyed by (run, round, phone) as in every run, so a phone trains each
version at most once, and the updates of a phone count in the rising order of their rounds. A fast phone that has
trained the newest version waits for the next one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from featherfed.errors import ProblemError
from featherfed.rules.select import SelectKey
from featherfed.server.rounds.cohort import NOTHING_KNOWN, Facts, choose_cohort, handled
from featherfed.server.rounds.events import (
    Accept,
    Action,
    Assign,
    Closed,
    CloseRound,
    Deadline,
    Event,
    Fail,
    Finished,
    GaveUp,
    Joined,
    Lost,
    OpenRound,
    Pause,
    Resume,
    Stop,
)
from featherfed.server.rounds.round_machine import STOPPED, Phase, Rules


@dataclass(frozen=True, slots=True)
class AsyncState:
    """Where an asynchronous run stands; `round_number` is the version that the buffer will be."""

    rules: Rules
    phase: Phase = Phase.GATHERING
    round_number: int = 0
    attempt: int = 0
    buffer: frozenset[tuple[int, int]] = frozenset()
    """(round trained, shard) of each update that counts in this round."""
    busy: frozenset[int] = frozenset()
    """Shards that have a task, of this round or an older one."""
    failed: frozenset[int] = frozenset()
    present: frozenset[int] = frozenset()
    last: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """By shard: the newest round of which its update counts."""
    facts: Facts = field(default_factory=lambda: NOTHING_KNOWN)
    """What is known of the phones, where the selection looks at it."""
    began: int = 0
    """The attempt in which this life of the server found its round: each life has retries of its own."""

    @property
    def exhausted(self) -> bool:
        """Whether a buffer that has too few updates is not waited for again."""
        return self.attempt - self.began >= self.rules.max_retries

    @property
    def target(self) -> int:
        """Updates that close this buffer."""
        return self.rules.target.at(self.round_number)

    @property
    def count(self) -> int:
        """Updates in the buffer."""
        return len(self.buffer)

    @property
    def accepted(self) -> frozenset[int]:
        """Shards with an update in the buffer."""
        return frozenset(shard for _, shard in self.buffer)

    @property
    def cohort(self) -> frozenset[int]:
        """Shards that take part in this round."""
        return self.busy | self.accepted | self.failed

    @property
    def missing(self) -> frozenset[int]:
        """Shards whose update was refused; nobody else is late here."""
        return self.failed

    def holds(self, round_number: int, shard: int) -> bool:
        """Whether an update is here whose circle is not summed yet: in this machine there are no circles."""
        return False

    def takes(self, attempt: int) -> bool:
        """Whether an update of an attempt may count: in this machine of any."""
        return True

    def wants(self, round_number: int, shard: int) -> bool:
        """Whether an update of a round counts: now, or, while a buffer closes, in the next one."""
        running = self.phase in (Phase.OPEN, Phase.CLOSING) and shard not in self.failed
        return running and self.last.get(shard, 0) < round_number <= self.round_number


AsyncStep = tuple[AsyncState, tuple[Action, ...]]


def _fill(state: AsyncState) -> tuple[AsyncState, tuple[int, ...]]:
    """Give every free place to a phone that has not trained the newest version; raises `ProblemError`."""
    rules = state.rules
    idle = state.present - state.busy - state.failed
    eligible = [shard for shard in idle if state.last.get(shard, 0) < state.round_number]
    room = max(0, rules.cohort_size.at(state.round_number) - len(state.busy))
    key = SelectKey(rules.seed, state.round_number, state.attempt)
    chosen = choose_cohort(rules.select, state.facts, eligible, room, key)
    return replace(state, busy=state.busy | frozenset(chosen)), chosen


def _assign(state: AsyncState) -> AsyncStep:
    try:
        state, chosen = _fill(state)
    except ProblemError as error:
        return replace(state, phase=Phase.PAUSED), (Pause(str(error)),)
    return state, tuple(Assign(shard) for shard in chosen)


def _ask(state: AsyncState) -> AsyncStep:
    try:
        state, chosen = _fill(state)
    except ProblemError as error:
        return replace(state, phase=Phase.PAUSED), (Pause(str(error)),)
    return state, (OpenRound(state.round_number, state.attempt, chosen),)


def _open(state: AsyncState, round_number: int) -> AsyncStep:
    opened = replace(
        state,
        phase=Phase.OPEN,
        round_number=round_number,
        attempt=0,
        began=0,
        buffer=frozenset(),
        failed=frozenset(),
    )
    return _ask(opened)


def _gather(state: AsyncState, event: Joined) -> AsyncStep:
    state = replace(state, present=state.present | {event.shard})
    return (
        _open(state, state.round_number + 1) if len(state.present | state.failed) >= state.rules.phones else (state, ())
    )


def _resume_gathering(state: AsyncState, event: Resume) -> AsyncStep:
    if event.reached or state.round_number >= state.rules.rounds:
        return replace(state, phase=Phase.DONE), (Finished(),)
    return _open(state, state.round_number + 1) if len(state.present) >= state.rules.phones else (state, ())


def _resume_open(state: AsyncState, event: Resume) -> AsyncStep:
    if state.count >= state.target:
        return _close(state)
    if state.exhausted and state.count < state.rules.min_updates:
        # The run has paused, perhaps since all phones have failed: whoever resumes it has them tried once more.
        state = replace(state, failed=frozenset())
    return _ask(replace(state, began=state.attempt))


def _join_open(state: AsyncState, event: Joined) -> AsyncStep:
    state = replace(state, present=state.present | {event.shard})
    if event.shard in state.busy:
        return state, (Assign(event.shard),)
    return _assign(state)


def _join_closing(state: AsyncState, event: Joined) -> AsyncStep:
    # Its place is given anew when the next round opens, most likely to itself.
    return replace(state, present=state.present | {event.shard}, busy=state.busy - {event.shard}), ()


def _lose(state: AsyncState, event: Lost | GaveUp) -> AsyncStep:
    return replace(state, present=state.present - {event.shard}, busy=state.busy - {event.shard}), ()


def _lose_open(state: AsyncState, event: Lost) -> AsyncStep:
    return _assign(_lose(state, event)[0])


def _accept(state: AsyncState, event: Accept) -> AsyncStep:
    if not state.wants(event.round_number, event.shard):
        return state, ()
    state = replace(
        state,
        buffer=state.buffer | {(event.round_number, event.shard)},
        busy=state.busy - {event.shard},
        last=MappingProxyType({**state.last, event.shard: event.round_number}),
    )
    return _close(state) if state.count >= state.target else _assign(state)


def _fail(state: AsyncState, event: Fail) -> AsyncStep:
    return _assign(replace(state, failed=state.failed | {event.shard}, busy=state.busy - {event.shard}))


def _give_up_gathering(state: AsyncState, event: GaveUp) -> AsyncStep:
    shard = {event.shard}
    state = replace(state, present=state.present - shard, failed=state.failed | shard)
    enough = state.present and len(state.present | state.failed) >= state.rules.phones
    return _open(state, state.round_number + 1) if enough else (state, ())


def _give_up_open(state: AsyncState, event: GaveUp) -> AsyncStep:
    return _fail(replace(state, present=state.present - {event.shard}), Fail(event.shard))


def _deadline(state: AsyncState, event: Deadline) -> AsyncStep:
    rules = state.rules
    if (event.round_number, event.attempt) != (state.round_number, state.attempt):
        return state, ()
    if state.count >= rules.min_updates:
        return _close(state)
    if state.exhausted:
        pause = Pause(
            f"round {state.round_number} had {state.count} of at least {rules.min_updates} updates"
            f" in each of {state.attempt + 1} attempts"
        )
        return replace(state, phase=Phase.PAUSED), (pause,)
    # Whoever was silent for so long holds no place any more; its update counts all the same if it comes.
    return _ask(replace(state, attempt=state.attempt + 1, busy=frozenset()))


def _close(state: AsyncState) -> AsyncStep:
    return replace(state, phase=Phase.CLOSING), (CloseRound(state.round_number, tuple(sorted(state.accepted))),)


def _closed(state: AsyncState, event: Closed) -> AsyncStep:
    if event.round_number != state.round_number:
        return state, ()
    if event.reached or state.round_number >= state.rules.rounds:
        return replace(state, phase=Phase.DONE, busy=frozenset()), (Finished(),)
    return _open(state, state.round_number + 1)


def _stop(state: AsyncState, event: Stop) -> AsyncStep:
    return replace(state, phase=Phase.PAUSED), (Pause(STOPPED),)


TABLE: Mapping[Phase, Mapping[type, Callable[..., AsyncStep]]] = {
    Phase.GATHERING: {
        Joined: _gather,
        Lost: _lose,
        GaveUp: _give_up_gathering,
        Resume: _resume_gathering,
        Stop: _stop,
    },
    Phase.OPEN: {
        Joined: _join_open,
        Lost: _lose_open,
        Accept: _accept,
        Fail: _fail,
        GaveUp: _give_up_open,
        Deadline: _deadline,
        Resume: _resume_open,
        Stop: _stop,
    },
    Phase.UNMASKING: {},  # of `summed_machine`
    Phase.CLOSING: {Joined: _join_closing, Lost: _lose, GaveUp: _lose, Closed: _closed, Stop: _stop},
    Phase.DONE: {Lost: _lose, GaveUp: _lose},
    Phase.PAUSED: {Lost: _lose, GaveUp: _lose},
}


def advance(state: AsyncState, event: Event) -> AsyncStep:
    """Return the state after `event` and what must be done now, in that order."""
    return handled(TABLE[state.phase].get(type(event)), state, event)
