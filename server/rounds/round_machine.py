"""The round machine: `(state, event) -> (state, actions)`, a table and nothing else.

It never sleeps and never looks at a clock: deadlines are events. It never fails: an event that no longer matters (a
deadline of an old attempt, an update after the close) is answered, not raised, since the network may bring it at any
time. What the table does not list for a phase changes nothing.

    GATHERING --enough phones--> OPEN --quorum, or deadline with enough--> CLOSING --Closed--> OPEN … --last--> DONE
                                   `--deadline with too few--> OPEN (new cohort) … --too often--> PAUSED
    any phase --Stop--> PAUSED
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from featherfed.by_round import ByRound
from featherfed.errors import ProblemError
from featherfed.privacy.accounting import Price
from featherfed.privacy.budget import Account, Budget
from featherfed.rules.checked import chosen
from featherfed.rules.select import PhoneFacts, Select, SelectKey
from featherfed.rules.selections import Uniform
from featherfed.server.rounds.cohort import NOTHING_KNOWN, Facts, choose_cohort, handled
from featherfed.server.rounds.events import (
    Accept,
    Action,
    Asked,
    Assign,
    CancelPhones,
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

UNIFORM = Uniform()
STOPPED = "the operator stopped the run"
"""The reason of the one pause that is nobody's failure."""


class Phase(enum.Enum):
    """What the run is doing."""

    GATHERING = "gathering"
    OPEN = "open"
    UNMASKING = "unmasking"
    """Of a run that sums circles: updates are in, and their sums are being opened."""
    CLOSING = "closing"
    DONE = "done"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What never changes during a run."""

    phones: int
    rounds: int
    cohort_size: ByRound[int]
    target: ByRound[int]
    min_updates: int
    max_retries: int
    seed: int
    first: int = 0
    total: int = 0
    """Of a gateway: its phones are the shards first … first + phones - 1 of so many. 0: this is no gateway."""
    select: Select = UNIFORM
    """Who is asked of those who are there."""
    of_all: bool = False
    """Whether a cohort is drawn of all phones, there or not: each can be told its rounds beforehand."""
    budget: Budget | None = None
    """What a run with differential privacy may say of a phone."""

    @property
    def gathered(self) -> int:
        """How many phones the first round waits for."""
        return 1 if self.of_all else self.phones

    def drawn(self, round_number: int) -> tuple[int, ...]:
        """Return whom a round asks that is drawn of all phones; raises `ProblemError` for a faulty selection."""
        key = SelectKey(self.seed, round_number, 0)
        return choose_cohort(self.select, NOTHING_KNOWN, range(self.phones), self.asked(round_number), key)

    def asked(self, round_number: int) -> int:
        """Return how many phones are asked: of a gateway's, those whom one server would ask if all are there.

        A gateway's selection is separable: those chosen of all phones are those that each gateway would choose.
        """
        if not self.total:
            return self.cohort_size.at(round_number)
        everyone = [PhoneFacts(shard) for shard in range(self.total)]
        asked = chosen(self.select, everyone, self.cohort_size.at(round_number), SelectKey(self.seed, round_number, 0))
        return sum(self.first <= shard < self.first + self.phones for shard in asked)


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands. `round_number` counts from 1; 0 is before the first round."""

    rules: Rules
    phase: Phase = Phase.GATHERING
    round_number: int = 0
    attempt: int = 0
    cohort: frozenset[int] = frozenset()
    accepted: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    present: frozenset[int] = field(default=frozenset())
    asked: int = 0
    """The round that a gateway's root has asked for; 0: none yet."""
    facts: Facts = field(default_factory=lambda: NOTHING_KNOWN)
    """What is known of the phones, where the selection looks at it."""
    account: Account = field(default_factory=Account)
    """What the run has said of each phone so far, where it has a budget for that."""
    charged: frozenset[int] = frozenset()
    """Who has paid for this round before it is closed."""
    began: int = 0
    """The attempt in which this life of the server found its round: each life has retries of its own."""

    @property
    def exhausted(self) -> bool:
        """Whether a round that has too few updates is not tried again."""
        return self.attempt - self.began >= self.rules.max_retries

    @property
    def fewest(self) -> int:
        """How many phones an attempt asks at least, if anything is to come of it."""
        return 1

    def may(self, shard: int) -> bool:
        """Whether a shard may be in the round's sum, as far as its budget goes."""
        budget = self.rules.budget
        return budget is None or budget.allows(self.account, shard)

    @property
    def target(self) -> int:
        """Updates that close this round."""
        return self.rules.target.at(self.round_number)

    @property
    def outstanding(self) -> frozenset[int]:
        """Shards of the cohort whose update is still awaited."""
        return self.cohort - self.accepted - self.failed

    @property
    def count(self) -> int:
        """Updates that count in this round."""
        return len(self.accepted)

    @property
    def owing(self) -> frozenset[int]:
        """Shards of accepted updates that are to be paid for when the round closes."""
        return self.accepted - self.charged

    @property
    def missing(self) -> frozenset[int]:
        """Shards that were asked and whose update does not count."""
        return self.cohort - self.accepted

    def wants(self, round_number: int, shard: int) -> bool:
        """Whether an update of a round still counts."""
        return self.phase is Phase.OPEN and round_number == self.round_number and self.awaits(shard)

    def holds(self, round_number: int, shard: int) -> bool:
        """Whether an update is here whose circle is not summed yet: in this machine there are no circles."""
        return False

    def takes(self, attempt: int) -> bool:
        """Whether an update of an attempt may count: in this machine of any."""
        return True

    def awaits(self, shard: int) -> bool:
        """Whether a shard's update is outstanding: asked for each message, so it looks at no other shard."""
        return shard in self.cohort and shard not in self.accepted and shard not in self.failed

    @property
    def complete(self) -> bool:
        """Whether nobody is outstanding."""
        # The first is known at once, for every update but the last ones of a round.
        return len(self.accepted) + len(self.failed) >= len(self.cohort) and not self.outstanding


Step = tuple[RunState, tuple[Action, ...]]


def _choose(state: RunState, of: Iterable[int], size: int, key: SelectKey) -> tuple[int, ...]:
    """Return at most `size` of these shards; raises `ProblemError` for a faulty selection.

    Where the run has a budget they are those who have taken part least, and what is left of it allows that.
    """
    budget, account = state.rules.budget, state.account
    if budget is None:
        return choose_cohort(state.rules.select, state.facts, of, size, key)
    allowed = budget.left(account, of)
    return tuple(sorted(sorted(allowed, key=lambda shard: (account.of(shard).rounds, key.draw(shard)))[: max(size, 0)]))


def _open(state: RunState, round_number: int) -> Step:
    rules = state.rules
    if rules.budget and len(rules.budget.left(state.account, range(rules.phones))) < rules.min_updates:
        return replace(state, phase=Phase.PAUSED), (Pause(rules.budget.over(state.account, round_number - 1)),)
    size, key = rules.asked(round_number), SelectKey(rules.seed, round_number, 0)
    try:
        of = range(rules.phones) if rules.of_all else state.present
        cohort = _choose(state, of, size, key)
    except ProblemError as error:
        return replace(state, phase=Phase.PAUSED), (Pause(str(error)),)
    opened = replace(
        state,
        phase=Phase.OPEN,
        round_number=round_number,
        attempt=0,
        began=0,
        cohort=frozenset(cohort),
        accepted=frozenset(),
        failed=frozenset(),
        charged=frozenset(),
    )
    if not cohort and rules.total:
        # Nobody of this gateway's is asked: its sum is empty.
        closing = replace(opened, phase=Phase.CLOSING)
        return closing, (OpenRound(round_number, 0, cohort), CloseRound(round_number, ()))
    return opened, (OpenRound(round_number, 0, cohort),)


def _retry(state: RunState) -> Step:
    """Ask a fresh cohort; what was accepted stays, since the model that it was trained on has not changed."""
    rules, attempt = state.rules, state.attempt + 1
    fresh = frozenset(shard for shard in state.present - state.cohort if state.may(shard))
    # Where too few are left who were not asked, those who did not answer get a second chance. But whoever may know its
    # rounds beforehand is asked in no other while one of the cohort may still come.
    again = state.present - state.accepted - state.failed
    again = fresh if len(fresh) >= state.fewest else fresh | again
    candidates = state.outstanding or fresh if rules.of_all else again
    size = rules.cohort_size.at(state.round_number) - len(state.accepted)
    key = SelectKey(rules.seed, state.round_number, attempt)
    try:
        asked = _choose(state, candidates, size, key)
    except ProblemError as error:
        return replace(state, phase=Phase.PAUSED), (Pause(str(error)),)
    opened = replace(state, attempt=attempt, cohort=state.accepted | state.failed | frozenset(asked))
    return opened, (OpenRound(state.round_number, attempt, asked),)


def _gather(state: RunState, event: Joined) -> Step:
    return _begin(replace(state, present=state.present | {event.shard}))


def _begin(state: RunState) -> Step:
    """Open the next round once all phones are there; a gateway's is the one that its root asks for.

    One that came and could not train is not waited for.
    """
    rules = state.rules
    if len(state.present | state.failed) < rules.gathered or (rules.total and not state.asked):
        return state, ()
    return _open(state, state.asked or state.round_number + 1)


def _give_up_gathering(state: RunState, event: GaveUp) -> Step:
    shard = {event.shard}
    state = replace(state, present=state.present - shard, failed=state.failed | shard)
    return _begin(state) if state.present else (state, ())


def _give_up_open(state: RunState, event: GaveUp) -> Step:
    return _fail(replace(state, present=state.present - {event.shard}), Fail(event.shard))


def _asked_gathering(state: RunState, event: Asked) -> Step:
    state, rules = replace(state, asked=event.round_number), state.rules
    if event.round_number > 1:
        # Its phones came to the first round, and it has moved here without its disk: they are on their way back.
        state = replace(state, present=frozenset(range(rules.first, rules.first + rules.phones)))
    return _begin(state)


def _asked_open(state: RunState, event: Asked) -> Step:
    """Close with what there is if the root is further: it waits for this round no more."""
    return settle(state) if event.round_number > state.round_number else (state, ())


def _resume_gathering(state: RunState, event: Resume) -> Step:
    if event.reached or state.round_number >= state.rules.rounds:
        return replace(state, phase=Phase.DONE), (Finished(),)
    return _begin(state)


def _resume_open(state: RunState, event: Resume) -> Step:
    enough = len(state.accepted) >= state.rules.min_updates
    if state.exhausted and not enough:
        # The run has paused, perhaps since too many have failed: whoever resumes it has them tried once more.
        state = replace(state, failed=frozenset())
    state = replace(state, began=state.attempt)
    if not state.outstanding and not enough:
        # Though a life without retries has none to give: who is there now was perhaps not when the round opened.
        return _retry(state)
    if len(state.accepted) >= state.target or not state.outstanding:
        return settle(state)
    return state, (OpenRound(state.round_number, state.attempt, tuple(sorted(state.outstanding))),)


def _join_open(state: RunState, event: Joined) -> Step:
    state = replace(state, present=state.present | {event.shard})
    if event.shard in state.outstanding:
        return state, (Assign(event.shard),)
    room = state.rules.cohort_size.at(state.round_number) - len(state.cohort - state.failed)
    if state.attempt and event.shard not in state.cohort and room > 0 and state.may(event.shard):
        # A retry found too few phones there: who comes now is welcome.
        return replace(state, cohort=state.cohort | {event.shard}), (Assign(event.shard),)
    return state, ()


def _note_joined(state: RunState, event: Joined) -> Step:
    return replace(state, present=state.present | {event.shard}), ()


def _note_lost(state: RunState, event: Lost | GaveUp) -> Step:
    return replace(state, present=state.present - {event.shard}), ()


def _accept(state: RunState, event: Accept) -> Step:
    if event.round_number != state.round_number or not state.awaits(event.shard):
        return state, ()
    state = replace(state, accepted=state.accepted | {event.shard})
    if len(state.accepted) >= state.target or state.complete:
        return settle(state)
    return state, ()


def _fail(state: RunState, event: Fail) -> Step:
    if not state.awaits(event.shard):
        return state, ()
    state = replace(state, failed=state.failed | {event.shard})
    return settle(state) if state.complete else (state, ())


def _deadline(state: RunState, event: Deadline) -> Step:
    if (event.round_number, event.attempt) != (state.round_number, state.attempt):
        return state, ()
    return settle(state)


def settle(state: RunState) -> Step:
    """Close the round with what it has, or retry it, or pause."""
    rules = state.rules
    if len(state.accepted) >= rules.min_updates:
        close = CloseRound(state.round_number, tuple(sorted(state.accepted)))
        return replace(state, phase=Phase.CLOSING), (*cancel(state, state.outstanding), close)
    if state.exhausted:
        # Nobody is cancelled: what phones have sent so far counts when the run is resumed.
        pause = Pause(
            f"round {state.round_number} had {len(state.accepted)} of at least {rules.min_updates} updates"
            f" in each of {state.attempt + 1} attempts"
        )
        return replace(state, phase=Phase.PAUSED), (pause,)
    retried, actions = _retry(state)
    # A phone that is asked again is not cancelled: it goes on with what it has sent.
    return retried, (*cancel(state, state.outstanding - retried.outstanding), *actions)


def cancel(state: RunState, shards: frozenset[int]) -> tuple[Action, ...]:
    """Return what calls these phones off."""
    return (CancelPhones(state.round_number, tuple(sorted(shards))),) if shards else ()


def _closed(state: RunState, event: Closed) -> Step:
    if event.round_number != state.round_number:
        return state, ()
    if (budget := state.rules.budget) is not None:
        state = replace(state, account=state.account.charged(state.owing, Price(budget.rho)))
    if event.reached or state.round_number >= state.rules.rounds:
        return replace(state, phase=Phase.DONE, cohort=frozenset()), (Finished(),)
    return _open(state, event.following or state.round_number + 1)


def _stop(state: RunState, event: Stop) -> Step:
    return replace(state, phase=Phase.PAUSED), (Pause(STOPPED),)


EVERYWHERE: dict[type, Callable[..., Step]] = {
    Joined: _note_joined,
    Lost: _note_lost,
    GaveUp: _note_lost,
    Stop: _stop,
}

TABLE: Mapping[Phase, Mapping[type, Callable[..., Step]]] = {
    Phase.GATHERING: {
        **EVERYWHERE,
        Joined: _gather,
        GaveUp: _give_up_gathering,
        Asked: _asked_gathering,
        Resume: _resume_gathering,
    },
    Phase.OPEN: {
        **EVERYWHERE,
        Joined: _join_open,
        Accept: _accept,
        Fail: _fail,
        GaveUp: _give_up_open,
        Deadline: _deadline,
        Asked: _asked_open,
        Resume: _resume_open,
    },
    Phase.UNMASKING: {},  # of `summed_machine`
    Phase.CLOSING: {**EVERYWHERE, Closed: _closed},
    Phase.DONE: {Lost: _note_lost, GaveUp: _note_lost},
    Phase.PAUSED: {Lost: _note_lost, GaveUp: _note_lost},
}


def advance(state: RunState, event: Event) -> Step:
    """Return the state after `event` and what must be done now, in that order."""
    return handled(TABLE[state.phase].get(type(event)), state, event)


def accept_all(state: RunState, events: Sequence[Accept]) -> Step:
    """Return what comes of updates that became durable together: what comes of one after the other.

    Of many it costs little more than of one, where each would copy who has answered.
    """
    counted = {
        event.shard: event
        for event in events
        if event.round_number == state.round_number and state.phase is Phase.OPEN and state.awaits(event.shard)
    }
    if state.rules.select.uses_facts or state.count + len(counted) > state.target:
        actions: tuple[Action, ...] = ()
        for event in events:
            state, more = advance(state, event)
            actions += more
        return state, actions
    if not counted:
        return state, ()
    # The last one closes the round, if any does.
    *_, last = counted
    return advance(replace(state, accepted=state.accepted.union(counted.keys() - {last})), counted[last])
