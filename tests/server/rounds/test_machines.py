"""Model check: any events in any order, and what must hold of both machines whatever comes."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from featherfed.by_round import ByRound
from featherfed.server.rounds.async_machine import AsyncState
from featherfed.server.rounds.events import (
    Accept,
    Assign,
    CancelPhones,
    Closed,
    CloseRound,
    Deadline,
    Event,
    Fail,
    Finished,
    Joined,
    Lost,
    OpenRound,
    Pause,
    Resume,
    Stop,
)
from featherfed.server.rounds.machines import State, accept_all, advance
from featherfed.server.rounds.round_machine import Phase, Rules, RunState
from featherfed.server.rounds.summed_machine import SummedState

SHARDS = st.integers(0, 7)
ROUNDS = st.integers(0, 6)


class Machines(RuleBasedStateMachine):
    """Feeds events as the service does, and events that make no sense; keeps the books that the machine must match."""

    kind: type[Any]

    @initialize(
        phones=st.integers(1, 8), size=st.integers(1, 8), quorum=st.integers(1, 8), least=st.integers(1, 8),
        rounds=st.integers(1, 5), retries=st.integers(0, 3), seed=st.integers(0, 9), later=st.integers(1, 8),
        change=st.integers(2, 6),
    )  # fmt: skip
    def begin(
        self, phones: int, size: int, quorum: int, least: int, rounds: int, retries: int, seed: int, later: int,
        change: int,
    ) -> None:  # fmt: skip
        sizes = ByRound(min(size, phones), {change: min(later, phones)})
        targets = sizes.map(lambda size: min(quorum, size))
        rules = Rules(
            phones=phones, rounds=rounds, cohort_size=sizes, target=targets, min_updates=min(least, *targets.values),
            max_retries=retries, seed=seed,
        )  # fmt: skip
        self.state: State = self.kind(rules)
        self.counted: dict[int, set[tuple[int, int]]] = {}
        """By round: what was told to count in it."""
        self.closing: list[int] = []
        self.ended = 0
        self.most_round = 0

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = advance(before, event)
        for action in actions:
            match action:
                case CloseRound(number, accepted):
                    assert number not in self.closing, "a round closed twice"
                    self.closing.append(number)
                    assert set(accepted) == {shard for _, shard in self.counted.get(number, set())}
                    assert before.phase is Phase.OPEN
                case OpenRound(number, attempt, cohort):
                    assert (number, attempt) == (self.state.round_number, self.state.attempt)
                    assert isinstance(event, Resume) or set(cohort) <= self.state.present
                    assert attempt - self.state.began <= self.state.rules.max_retries
                case Assign(shard):
                    assert shard in self.state.cohort and shard in self.state.present
                case CancelPhones(number, shards):
                    assert not set(shards) & {shard for _, shard in self.counted.get(number, set())}
                    assert not any(self.state.wants(number, shard) for shard in shards)
                case Finished() | Pause():
                    self.ended += 1
        assert self.ended <= 1, "a run ended twice"

    @rule(shard=SHARDS)
    def join(self, shard: int) -> None:
        self.feed(Joined(shard % self.state.rules.phones))

    @rule(shard=SHARDS)
    def lose(self, shard: int) -> None:
        self.feed(Lost(shard))

    @precondition(lambda self: self.state.phase is not Phase.CLOSING)
    @rule(shard=SHARDS, number=ROUNDS, late=st.booleans())
    def accept(self, shard: int, number: int, late: bool) -> None:
        """As the service does: an update is folded, and told, only if it is wanted while the sum is open."""
        number = number if late else self.state.round_number
        wanted = self.state.wants(number, shard)
        before = self.state.count
        self.feed(Accept(shard, number))
        if wanted:
            self.note(number, shard)
        else:
            assert self.state.count == before

    def note(self, number: int, shard: int) -> None:
        raise NotImplementedError

    @rule(shard=SHARDS)
    def fail(self, shard: int) -> None:
        self.feed(Fail(shard))

    @rule(stale=st.booleans(), number=ROUNDS, attempt=st.integers(0, 4))
    def time_is_up(self, stale: bool, number: int, attempt: int) -> None:
        state = self.state
        self.feed(Deadline(number, attempt) if stale else Deadline(state.round_number, state.attempt))

    @rule(reached=st.booleans(), number=ROUNDS, stale=st.booleans())
    def closed(self, reached: bool, number: int, stale: bool) -> None:
        self.feed(Closed(number if stale else self.state.round_number, reached and not stale))

    @rule()
    def stop(self) -> None:
        self.feed(Stop())

    @precondition(lambda self: self.state.phase in (Phase.GATHERING, Phase.OPEN))
    @rule()
    def resume(self) -> None:
        self.feed(Resume())

    @invariant()
    def rounds_rise_and_stay_in_bounds(self) -> None:
        if not hasattr(self, "state"):
            return
        state = self.state
        assert self.most_round <= state.round_number <= state.rules.rounds
        self.most_round = state.round_number
        assert self.closing == sorted(self.closing)
        assert 0 <= state.attempt - state.began <= state.rules.max_retries

    @invariant()
    def what_counts_is_what_was_told_to_count(self) -> None:
        if hasattr(self, "state"):
            number = self.state.round_number
            told = {shard for _, shard in self.counted.get(number, set())}
            assert self.state.accepted == told
            assert self.state.count == len(self.counted.get(number, set()))

    @invariant()
    def a_round_that_is_open_lacks_something(self) -> None:
        if hasattr(self, "state") and self.state.phase is Phase.OPEN:
            assert self.state.count < self.state.rules.target.at(self.state.round_number)

    @invariant()
    def no_more_are_busy_than_may_be(self) -> None:
        if hasattr(self, "state") and isinstance(self.state, AsyncState):
            # Where fewer are asked from a round on, those who were asked before finish their tasks.
            assert len(self.state.busy) <= max(self.state.rules.cohort_size.values)


class SyncMachine(Machines):
    kind = RunState

    def feed(self, event: Event) -> None:
        # Told before the step, since the step may already close the round.
        if isinstance(event, Accept) and self.state.wants(event.round_number, event.shard):
            self.counted.setdefault(event.round_number, set()).add((event.round_number, event.shard))
        super().feed(event)

    def note(self, number: int, shard: int) -> None:
        assert (number, shard) in self.counted[number]


class AsyncMachine(Machines):
    kind = AsyncState

    def feed(self, event: Event) -> None:
        state = self.state
        if isinstance(event, Accept) and state.wants(event.round_number, event.shard):
            told = self.counted.setdefault(state.round_number, set())
            assert not any((event.round_number, event.shard) in updates for updates in self.counted.values()), (
                "an update counts twice"
            )
            told.add((event.round_number, event.shard))
        super().feed(event)

    def note(self, number: int, shard: int) -> None:
        assert any((number, shard) in updates for updates in self.counted.values())


ENOUGH = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestSyncMachine = SyncMachine.TestCase
TestSyncMachine.settings = ENOUGH
TestAsyncMachine = AsyncMachine.TestCase
TestAsyncMachine.settings = ENOUGH


def test_every_phase_takes_every_event() -> None:
    """No event is fatal in any phase, also from states that a resumed run begins in."""
    rules = Rules(phones=3, rounds=2, cohort_size=ByRound(2), target=ByRound(2), min_updates=1, max_retries=1, seed=0)
    events: list[Event] = [
        Joined(1), Lost(1), Accept(1, 1), Fail(1), Deadline(1, 0), Closed(1, False), Resume(), Stop(),
    ]  # fmt: skip
    for kind in (RunState, AsyncState, SummedState):
        for phase in Phase:
            for number in (0, 1, 2):
                for event in events:
                    start = kind(rules, phase=phase, round_number=number, present=frozenset({0, 1, 2}))
                    state, actions = advance(start, event)
                    assert isinstance(state, kind)
                    assert isinstance(actions, tuple)


def test_those_asked_again_are_not_cancelled_in_between() -> None:
    rules = Rules(phones=2, rounds=1, cohort_size=ByRound(2), target=ByRound(2), min_updates=2, max_retries=1, seed=0)
    state: State = RunState(rules)
    for event in (Joined(0), Joined(1), Accept(0, 1)):
        state, _ = advance(state, event)
    state, actions = advance(state, Deadline(1, 0))
    assert actions == (OpenRound(1, 1, (1,)),)
    assert state.wants(1, 1) and not state.wants(1, 0)


def test_resumed_round_without_anyone_to_wait_for_is_settled() -> None:
    rules = Rules(phones=2, rounds=1, cohort_size=ByRound(2), target=ByRound(2), min_updates=1, max_retries=1, seed=0)
    both = frozenset({0, 1})
    state = RunState(
        rules,
        phase=Phase.OPEN,
        round_number=1,
        cohort=both,
        accepted=frozenset({0}),
        failed=frozenset({1}),
        present=both,
    )
    assert advance(state, Resume())[1] == (CloseRound(1, (0,)),)


@given(
    st.sampled_from(list(Phase)), st.integers(1, 8), st.frozensets(SHARDS), st.frozensets(SHARDS),
    st.frozensets(SHARDS), st.lists(st.builds(Accept, SHARDS, st.integers(1, 2)), max_size=10),
)  # fmt: skip
def test_updates_together_are_updates_one_after_the_other(
    phase: Phase, target: int, cohort: frozenset[int], accepted: frozenset[int], failed: frozenset[int],
    events: list[Accept],
) -> None:  # fmt: skip
    rules = Rules(
        phones=8, rounds=3, cohort_size=ByRound(8), target=ByRound(target), min_updates=1, max_retries=1, seed=0
    )
    state = RunState(rules, phase, 1, 0, cohort, accepted & cohort, failed & cohort - accepted, frozenset(range(8)))
    one_by_one, actions = state, ()
    for event in events:
        one_by_one, more = advance(one_by_one, event)
        actions = (*actions, *more)
    assert accept_all(state, events) == (one_by_one, actions)
