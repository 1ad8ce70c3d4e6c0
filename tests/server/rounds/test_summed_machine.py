"""Model check: any events in any order, and what must hold of rounds whose circles are summed, whatever comes."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from featherfed.by_round import ByRound
from featherfed.privacy.accounting import Price
from featherfed.privacy.budget import Account, Budget
from featherfed.server.circle_plan import CirclePlan
from featherfed.server.rounds import circle as circles
from featherfed.server.rounds.circle import Circle, CirclePhase
from featherfed.server.rounds.events import (
    Accept,
    Answered,
    Asked,
    Assign,
    CancelPhones,
    Closed,
    CloseRound,
    Count,
    Deadline,
    Discard,
    EndUploads,
    Event,
    Expired,
    Fail,
    Finished,
    GaveUp,
    Joined,
    Lost,
    OpenCircle,
    Opened,
    OpenRound,
    Pause,
    Resume,
    SendList,
    Stop,
)
from featherfed.server.rounds.round_machine import Phase, Rules
from featherfed.server.rounds.summed_machine import SummedState, advance
from featherfed.server.rounds.unmasking import Unmasking

PHONES = 12
SHARDS = st.integers(0, PHONES - 1)


class SummedMachine(RuleBasedStateMachine):
    """Feeds events as the service does, and events that make no sense; keeps the books that the machine must match."""

    @initialize(
        masked=st.booleans(), phones=st.integers(5, PHONES), cohort=st.integers(5, PHONES), size=st.integers(5, 8),
        quorum=st.integers(1, PHONES), least=st.integers(1, PHONES), retries=st.integers(0, 3), seed=st.integers(0, 9),
        kind=st.sampled_from(["server", "when chosen", "gateway"]), there=st.sets(SHARDS, min_size=1),
    )  # fmt: skip
    def begin(
        self, masked: bool, phones: int, cohort: int, size: int, quorum: int, least: int, retries: int, seed: int,
        kind: str, there: set[int],
    ) -> None:  # fmt: skip
        cohort = min(cohort, phones)
        target = min(quorum, cohort)
        rules = Rules(
            phones=phones, rounds=3, cohort_size=ByRound(cohort), target=ByRound(target),
            min_updates=min(least, target), max_retries=retries, seed=seed, of_all=kind == "when chosen",
            budget=Budget(0.5, 1e-3, 3) if masked and kind != "gateway" else None,
        )  # fmt: skip
        if kind == "gateway":
            rules = replace(rules, min_updates=0, target=ByRound(phones), total=phones)
        plan = CirclePlan(size, 40 if masked else cohort, 1, masked, 5 if masked else 1)
        self.state = SummedState(rules, plans=ByRound(plan))
        self.counted: dict[int, set[int]] = {}
        """By round: those of circles that were summed."""
        self.spent: set[tuple[int, int]] = set()
        """(round, shard) of who was in a final list."""
        self.paid: set[tuple[int, int]] = set()
        """(round, shard) of who was in a sum that could be opened, where phones add noise."""
        self.to_open: list[tuple[int, int, int]] = []
        """(round, attempt, circle) whose sum is being opened."""
        self.lists: list[tuple[int, int, int, Any]] = []
        self.ended = 0
        self.lives = 0
        self.open_before = False
        self.over = (0, 0)
        self.failed = frozenset[int]()
        self.known: set[int] = set()
        """Whose key is on the disk."""
        if kind == "gateway":
            # It may have moved in the middle of a run; its phones come back one by one.
            number = 1 if there >= set(range(phones)) else 2
            self.feed(Asked(number, life=number - 1))
        for shard in range(phones):
            if kind == "server" or shard in there or (kind == "gateway" and self.state.phase is Phase.GATHERING):
                self.join(shard)

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = advance(before, event)
        state = self.state
        if state.phase is not Phase.PAUSED:
            self.open_before = state.phase in (Phase.OPEN, Phase.UNMASKING)
        for action in actions:
            match action:
                case OpenRound(number, _, cohort):
                    if state.masked and state.circles:
                        assert self.known.issuperset(each for dealt in state.circles for each in dealt.members), "keys"
                    assert not {shard for shard in cohort if (number, shard) in self.spent}, "asked after a final list"
                    self.failed = state.failed
                case EndUploads():
                    self.over = before.round_number, before.attempt
                case Assign(shard):
                    assert (state.round_number, shard) not in self.spent, "asked after a final list"
                    assert shard in state.cohort and state.place(shard) is not None
                case SendList(number, list_, to):
                    place = before.round_number, before.attempt, number
                    assert set(to) <= list_.alive <= set(before.circles[number].members)
                    if list_.final:
                        self.spent |= {(before.round_number, shard) for shard in list_.alive}
                    self.lists.append((*place, list_))
                case OpenCircle(number):
                    assert (before.round_number, before.attempt, number) not in self.to_open, "opened twice at once"
                    self.to_open.append((before.round_number, before.attempt, number))
                case Count(number, _, shards):
                    told = self.counted.setdefault(number, set())
                    assert not told & set(shards), "an update counts twice"
                    told |= set(shards)
                case CloseRound(number, accepted):
                    assert set(accepted) == self.counted.get(number, set())
                    assert len(accepted) >= state.rules.min_updates or self.lives
                    assert not state.arrived
                case CancelPhones(number, shards):
                    assert not set(shards) & self.counted.get(number, set())
                    assert not any(state.wants(number, shard) for shard in shards)
                case Discard(number):
                    assert not state.arrived and number == before.round_number
                case Finished() | Pause():
                    self.ended += 1

    @rule(shard=SHARDS)
    def join(self, shard: int) -> None:
        self.known.add(shard % self.state.rules.phones)
        self.feed(Joined(shard % self.state.rules.phones))

    @precondition(lambda self: self.state.rules.total)
    @rule(ahead=st.integers(0, 1))
    def root_goes_on(self, ahead: int) -> None:
        before = self.state
        self.feed(Asked(before.round_number + ahead))
        if ahead and before.phase in (Phase.OPEN, Phase.UNMASKING):
            assert self.state.phase is Phase.CLOSING

    @rule(shard=SHARDS, kind=st.sampled_from([Lost, Fail, GaveUp]))
    def leave(self, shard: int, kind: Any) -> None:
        self.feed(kind(shard))

    @rule(shard=SHARDS, late=st.booleans())
    def arrive(self, shard: int, late: bool) -> None:
        self.feed(Accept(shard, self.state.round_number - late))

    @precondition(lambda self: self.state.phase is Phase.OPEN)
    @rule(spared=st.sets(SHARDS, max_size=4))
    def most_arrive(self, spared: set[int]) -> None:
        for shard in sorted(self.state.outstanding - spared):
            if self.state.wants(self.state.round_number, shard):
                self.feed(Accept(shard, self.state.round_number))

    @rule(stale=st.booleans())
    def time_is_up(self, stale: bool) -> None:
        state = self.state
        self.feed(Deadline(state.round_number, state.attempt - stale))

    @precondition(lambda self: self.lists)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        number, attempt, _, list_ = data.draw(st.sampled_from(self.lists))
        for shard in data.draw(st.sets(st.sampled_from(list_.recipients or (0,)))):
            self.feed(Answered(number, shard, attempt, list_.version))

    @precondition(lambda self: self.lists)
    @rule()
    def all_answer(self) -> None:
        for number, attempt, _, list_ in list(self.lists):
            for shard in list_.recipients:
                self.feed(Answered(number, shard, attempt, list_.version))

    @precondition(lambda self: self.lists)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        number, attempt, circle, list_ = data.draw(st.sampled_from(self.lists))
        self.feed(Expired(number, attempt, circle, list_.version))

    @precondition(lambda self: self.to_open)
    @rule(how=st.sampled_from(["sum", "sum", "sum", "spoilt", "lacking"]), data=st.data())
    def open(self, how: str, data: st.DataObject) -> None:
        place = self.to_open.pop(data.draw(st.integers(0, len(self.to_open) - 1)))
        self.opened(place, how)

    def opened(self, place: tuple[int, int, int], how: str) -> None:
        """Charge for a sum, as is on the disk before it is opened, and say what became of it."""
        price = None
        if self.state.rules.budget is not None:
            price = Price(0.25)
            self.paid |= {(place[0], shard) for shard in self.state.circles[place[2]].survivors}
        self.feed(Opened(*place, self.outcome(place, how), price))

    def outcome(self, place: tuple[int, int, int], how: str) -> circles.Opened:
        number, attempt, circle = place
        lacking = frozenset[int]()
        here = (number, attempt) == (self.state.round_number, self.state.attempt)
        if how == "lacking" and here and self.state.masked:
            lacking = frozenset(sorted(self.state.circles[circle].survivors)[:1])
        return circles.Opened(lacking=lacking, spoilt=how == "spoilt")

    @precondition(lambda self: self.state.phase is Phase.CLOSING)
    @rule()
    def closed(self) -> None:
        self.feed(Closed(self.state.round_number, False))

    @rule()
    def stop(self) -> None:
        self.feed(Stop())

    @precondition(lambda self: self.state.round_number and self.open_before)
    @rule()
    def die_and_resume(self) -> None:
        """Go on from what the disk has, as `resume_point` reads it."""
        state = self.state
        over = self.over == (state.round_number, state.attempt)
        arrived = [each.arrived for each in state.circles if each.phase is not CirclePhase.SUMMED]
        restored = tuple(
            Circle.restored(
                members=each.members, threshold=each.threshold, least=each.least, arrived=each.arrived,
                lists=each.lists, answered=each.answered,
                ended=each.phase if each.phase is CirclePhase.SUMMED else None,
            )
            for each in state.circles
        )  # fmt: skip
        self.to_open, self.ended, self.lives = [], 0, self.lives + 1
        self.state = SummedState(
            state.rules, plans=state.plans, phase=Phase.UNMASKING if over else Phase.OPEN,
            round_number=state.round_number, attempt=state.attempt, cohort=state.cohort, accepted=state.accepted,
            failed=self.failed, present=frozenset(self.known), life=state.life,
            arrived=frozenset[int]().union(*arrived) - state.accepted, circles=restored, dealt=state.dealt,
            account=self.account(),
            charged=frozenset(each for number, each in self.paid if number == state.round_number),
        )  # fmt: skip
        self.feed(Resume())

    def account(self) -> Account:
        """Return the account of the rows on the disk."""
        account = Account()
        for _, shard in sorted(self.paid):
            account = account.charged([shard], Price(0.25))
        return account

    @invariant()
    def each_sum_that_could_be_opened_is_paid_for_once_and_nothing_else(self) -> None:
        if hasattr(self, "state") and self.state.rules.budget is not None:
            assert self.state.account == self.account()
            assert self.state.accepted <= {each for number, each in self.paid if number == self.state.round_number}

    @invariant()
    def what_counts_is_of_summed_circles(self) -> None:
        if hasattr(self, "state"):
            assert self.state.accepted == self.counted.get(self.state.round_number, set())

    @invariant()
    def something_is_always_waited_for(self) -> None:
        """A round that is unmasking has a circle that is opened, or one whose last list has a deadline."""
        if hasattr(self, "state") and self.state.phase is Phase.UNMASKING:
            going_on = [(number, each) for number, each in enumerate(self.state.circles) if not each.over]
            assert going_on
            for number, each in going_on:
                place = self.state.round_number, self.state.attempt, number
                assert each.opening == (place in self.to_open)
                assert each.opening or each.lists

    def teardown(self) -> None:
        """Time alone leads on: no deadline is waited for in vain."""
        if not hasattr(self, "state"):
            return
        for _ in range(200):
            state = self.state
            if state.phase in (Phase.PAUSED, Phase.DONE, Phase.GATHERING):
                return
            if state.phase is Phase.CLOSING:
                self.feed(Closed(state.round_number, False))
            elif state.phase is Phase.OPEN:
                self.feed(Deadline(state.round_number, state.attempt))
            elif self.to_open:
                place = self.to_open.pop()
                self.opened(place, "lacking" if len(self.lists) % 2 else "sum")
            else:
                number = next(number for number, each in enumerate(state.circles) if not each.over)
                version = state.circles[number].lists[-1].version
                self.feed(Expired(state.round_number, state.attempt, number, version))
        raise AssertionError(f"no end: {self.state}")


TestSummedMachine = SummedMachine.TestCase
TestSummedMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_sum_that_is_opened_while_the_run_is_paused_is_paid_for() -> None:
    machine = SummedMachine()
    machine.begin(
        masked=True, phones=5, cohort=5, size=5, quorum=5, least=1, retries=0, seed=0, kind="server",
        there=set(range(5)),
    )  # fmt: skip
    for shard in range(5):
        machine.join(shard)
    machine.most_arrive(set())
    while not machine.to_open:
        machine.all_answer()
    machine.stop()
    machine.opened(machine.to_open.pop(), "sum")
    assert machine.state.phase is Phase.PAUSED and machine.paid
    machine.each_sum_that_could_be_opened_is_paid_for_once_and_nothing_else()


def test_sum_whose_last_answers_come_while_the_run_is_paused_is_opened_and_paid_for() -> None:
    """Who keeps every byte could open it, though the run were never resumed."""
    machine = SummedMachine()
    machine.begin(
        masked=True, phones=5, cohort=5, size=5, quorum=5, least=1, retries=0, seed=0, kind="server",
        there=set(range(5)),
    )  # fmt: skip
    for shard in range(5):
        machine.join(shard)
    machine.most_arrive(set())
    assert machine.lists and not machine.to_open
    machine.stop()
    machine.all_answer()
    machine.opened(machine.to_open.pop(), "sum")
    assert machine.state.phase is Phase.PAUSED and machine.paid
    machine.each_sum_that_could_be_opened_is_paid_for_once_and_nothing_else()


def _masked(**changes: Any) -> SummedState:
    rules = Rules(
        phones=7, rounds=2, cohort_size=ByRound(6), target=ByRound(6), min_updates=1, max_retries=1, seed=0
    )  # fmt: skip
    plans = ByRound(CirclePlan(5, 7, masked=True, least=5))
    everyone = frozenset(range(7))
    state = SummedState(rules, Phase.OPEN, 1, 0, everyone - {6}, present=everyone, plans=plans)
    return replace(state, **changes)


def test_retry_asks_as_many_as_make_a_circle() -> None:
    """One phone alone that was not asked yet would wait for its deadline in vain."""
    _, actions = advance(_masked(dealt=(1, 0)), Deadline(1, 0))
    assert [len(action.cohort) for action in actions if isinstance(action, OpenRound)] == [6]


def test_round_of_which_fewer_than_a_circle_are_left_is_closed_when_it_is_resumed() -> None:
    """The others have told what opens their updates, and rest: no attempt can help."""
    state = _masked(cohort=frozenset(range(7)), failed=frozenset(range(5)), attempt=1)
    paused, actions = advance(state, Deadline(1, 1))
    assert paused.phase is Phase.PAUSED
    assert "all but 2, fewer than a circle needs" in next(each.reason for each in actions if isinstance(each, Pause))
    state, _ = advance(state, Resume())
    state, actions = advance(state, Deadline(1, 1))
    assert state.phase is Phase.CLOSING
    assert CloseRound(1, ()) in actions


def test_resumed_run_closes_no_later_round_empty() -> None:
    """Only the round that it was resumed in may close with too few: a version of none is no version."""
    state = _masked(cohort=frozenset(range(7)), failed=frozenset(range(5)), attempt=1)
    for event in (Resume(), Deadline(1, 1), Closed(1, False)):
        state, _ = advance(state, event)
    assert (state.phase, state.round_number) == (Phase.OPEN, 2)
    for shard in sorted(state.cohort)[:3]:
        state, _ = advance(state, Fail(shard))
    state, actions = advance(state, Deadline(2, 0))
    assert state.phase is Phase.PAUSED
    assert "fewer than a circle needs" in next(each.reason for each in actions if isinstance(each, Pause))


def test_attempt_whose_phones_are_called_off_is_over_on_the_disk_before_they_are_told() -> None:
    """They forget its secrets: a gateway that is killed while its root has its sum must not ask them for it again."""
    rules = replace(_masked().rules, total=7, min_updates=0)
    dealt = _masked(rules=rules, dealt=(1, 0), circles=(Circle(members=(0, 1, 2, 3, 4, 5), threshold=4, least=5),))
    for event in (Deadline(1, 0), Asked(2)):
        state, actions = advance(dealt, event)
        kinds = [type(action) for action in actions]
        assert state.phase is Phase.CLOSING
        assert kinds.index(EndUploads) < kinds.index(CancelPhones) < kinds.index(CloseRound)
        assert Unmasking._row(state, 0).state == "over"
