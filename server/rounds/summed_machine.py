"""The round machine of a run that sums circles: an update counts when the sum of its circle is open.

The words are those of the round machine, whose table it has but for what follows an update's arrival. Each attempt
deals its cohort into circles (`circle`), each of which ends summed or failed:

    OPEN --quorum, deadline, or nobody outstanding--> UNMASKING --all circles over, enough summed--> CLOSING
                                                        `--too few--> OPEN (another attempt) … --too often--> PAUSED

- A quorum is of updates in circles of which enough have come to be summed.
- Nobody joins a circle once it is dealt, and another attempt has other circles: phones mask what they have anew.
- Members of a masked circle need each other's keys: where some of a cohort are not here when their round opens, it is
  dealt when they are, or at a deadline, without them; another deadline runs then.
- Circles that are summed stay in the round whatever becomes of others.
- Whoever was in a final list is not asked again in that round, summed or not: two sums that differ by one phone would
  show its update.
- A gateway goes on when its root does: what is in no sum then counts in none. A share of the cohort that makes no
  circle is not asked; where all circles fail, those whose updates came are dealt into others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from featherfed.by_round import ByRound
from featherfed.secure.circles import threshold_of
from featherfed.server.circle_plan import CirclePlan
from featherfed.server.rounds import circle as circles
from featherfed.server.rounds import circle_machine, round_machine
from featherfed.server.rounds.circle import Circle, CircleAction, CircleEvent, CirclePhase
from featherfed.server.rounds.cohort import handled
from featherfed.server.rounds.events import (
    Accept,
    Action,
    Answered,
    Asked,
    Assign,
    CloseRound,
    Count,
    Deadline,
    Discard,
    EndUploads,
    Event,
    Expired,
    Fail,
    GaveUp,
    Joined,
    Lost,
    OpenCircle,
    Opened,
    OpenRound,
    Pause,
    Resume,
    SendList,
)
from featherfed.server.rounds.round_machine import Phase, RunState

ATTEMPTS_OF_A_LIFE = 1 << 16


def circle_of(members: tuple[int, ...], plan: CirclePlan) -> Circle:
    """Return a circle of which nothing is here yet."""
    threshold = threshold_of(len(members)) if plan.masked else 0
    return Circle(members=members, threshold=threshold, least=plan.survivors(len(members)))


@dataclass(frozen=True, slots=True)
class SummedState(RunState):
    """Where such a run stands; `accepted` are those whose circles are summed."""

    plans: ByRound[CirclePlan] = field(default_factory=lambda: ByRound(CirclePlan()))
    arrived: frozenset[int] = frozenset()
    """Shards whose update is here, and whose circle is not over."""
    circles: tuple[Circle, ...] = ()
    """Of this attempt."""
    dealt: tuple[int, int] = (0, 0)
    """The round and attempt that they are of."""
    resumed: int = 0
    """The round that this server has gone on with; 0: none."""
    life: int = 0
    """Of a gateway: how many times it has come to its root without its memory."""

    @property
    def fewest(self) -> int:
        """How many phones make a circle."""
        return self.plans.at(self.round_number).least

    @property
    def undealt(self) -> bool:
        """Whether the circles of this attempt wait for phones that are not here."""
        return self.phase is Phase.OPEN and self.dealt != (self.round_number, self.attempt)

    @property
    def masked(self) -> bool:
        """Whether circles are summed under masks."""
        return self.plans.first.masked

    @property
    def outstanding(self) -> frozenset[int]:
        """Shards of the cohort whose update is still awaited."""
        return self.cohort - self.accepted - self.failed - self.arrived

    @property
    def count(self) -> int:
        """Updates that are here."""
        return len(self.accepted) + len(self.arrived)

    def awaits(self, shard: int) -> bool:
        """Whether a shard's update is outstanding."""
        return RunState.awaits(self, shard) and shard not in self.arrived

    def holds(self, round_number: int, shard: int) -> bool:
        """Whether an update is here whose circle is not summed yet."""
        return round_number == self.round_number and shard in self.arrived

    @property
    def told_attempt(self) -> int:
        """The attempt as phones hear it: no gateway that has lost its memory says a number that it has said before."""
        return self.life * ATTEMPTS_OF_A_LIFE + self.attempt

    def takes(self, attempt: int) -> bool:
        """Whether an update of an attempt may count: each has masks of its own."""
        return attempt == self.told_attempt

    @property
    def complete(self) -> bool:
        """Whether nobody is outstanding."""
        return not self.outstanding

    @property
    def enough(self) -> bool:
        """Whether no more updates are waited for: all have come, or a quorum of them that can be summed.

        A circle of which too few have come would be lost, with all that is here of it.
        """
        if self.complete:
            return True
        can_be_summed = (
            len(circle.arrived) for circle in self.circles if not circle.over and len(circle.arrived) >= circle.least
        )
        return len(self.accepted) + sum(can_be_summed) >= self.target

    def place(self, shard: int) -> int | None:
        """Return the number of the circle that a shard is in; None where it is in none."""
        return next((number for number, each in enumerate(self.circles) if shard in each.members), None)


Step = tuple[SummedState, tuple[Action, ...]]


def _with_circle(state: SummedState, number: int, event: CircleEvent) -> Step:
    """Advance one circle; return what it asks for."""
    return _put(state, number, *circle_machine.advance(state.circles[number], event))


def _put(state: SummedState, number: int, circle: Circle, wanted: tuple[CircleAction, ...]) -> Step:
    state = replace(state, circles=(*state.circles[:number], circle, *state.circles[number + 1 :]))
    return state, tuple(
        OpenCircle(number) if isinstance(each, circles.Open) else SendList(number, each.list_, each.to)
        for each in wanted
    )


def _arrive(state: SummedState, event: Accept) -> Step:
    number = state.place(event.shard)
    if event.round_number != state.round_number or not state.awaits(event.shard) or number is None:
        return state, ()
    state = replace(state, arrived=state.arrived | {event.shard})
    state, actions = _with_circle(state, number, circles.Arrived(event.shard))
    if state.enough:
        state, more = _end_uploads(state)
        actions += more
    return state, actions


def _fail(state: SummedState, event: Fail) -> Step:
    if not state.awaits(event.shard):
        return _lose(state, event)
    state = replace(state, failed=state.failed | {event.shard})
    return _end_uploads(state) if state.complete else (state, _when_here(state))


def _give_up(state: SummedState, event: GaveUp) -> Step:
    return _fail(replace(state, present=state.present - {event.shard}), Fail(event.shard))


def _deadline(state: SummedState, event: Deadline) -> Step:
    if (event.round_number, event.attempt) != (state.round_number, state.attempt):
        return state, ()
    if state.undealt and len(state.outstanding & state.present) >= state.fewest:
        # The others are not waited for any more.
        state = replace(state, failed=state.failed | (state.outstanding - state.present))
        return state, _when_here(state)
    return _end_uploads(state)


def _when_here(state: SummedState) -> tuple[Action, ...]:
    """Return what deals the circles of an attempt whose phones are all here, if they wait for that."""
    if not state.undealt or not state.outstanding <= state.present:
        return ()
    return (OpenRound(state.round_number, state.attempt, tuple(sorted(state.outstanding))),)


def _asked_gathering(state: SummedState, event: Asked) -> Step:
    state = replace(state, life=event.life)
    opened, actions = round_machine.TABLE[Phase.GATHERING][Asked](state, event)
    if state.masked:
        # Phones that are on their way back to a gateway have no keys here before they come.
        opened = replace(opened, present=state.present)
    return opened, actions  # type: ignore[return-value]  # a state keeps its kind


def _asked(state: SummedState, event: Asked) -> Step:
    """Close with what is summed if the root is further: it waits for this round no more."""
    if event.round_number <= state.round_number:
        return state, ()
    late = state.cohort - state.accepted - state.failed
    close = CloseRound(state.round_number, tuple(sorted(state.accepted)))
    state = replace(state, phase=Phase.CLOSING, arrived=frozenset())
    return state, (EndUploads(state.round_number), *round_machine.cancel(state, late), close)


def _end_uploads(state: SummedState) -> Step:
    """Take no more updates in this attempt, and open the sums of what is here."""
    late = round_machine.cancel(state, state.outstanding)
    state = replace(state, phase=Phase.UNMASKING)
    actions: tuple[Action, ...] = ()
    for number in range(len(state.circles)):
        state, more = _with_circle(state, number, circles.UploadsOver())
        actions += more
    if all(circle.over for circle in state.circles):
        # Whoever is asked again at once goes on with what it has.
        late = ()
    return _when_over(state, (EndUploads(state.round_number), *late, *actions))


def _when_over(state: SummedState, actions: tuple[Action, ...]) -> Step:
    """Close the round, or try it again, once all of its circles are summed or failed."""
    if state.phase is not Phase.UNMASKING or any(not circle.over for circle in state.circles):
        return state, actions
    spent = frozenset(shard for circle in state.circles for shard in circle.spent) - state.accepted
    here = state.arrived - spent
    state = replace(state, phase=Phase.OPEN, arrived=frozenset(), failed=state.failed | spent)
    settled, more = _try_again(state, here) or _settle(state)
    if settled.phase is not Phase.PAUSED:
        # They rest until the next round; what came of them, and of all who are in no sum, is of no use any more.
        more = (*round_machine.cancel(state, spent), Discard(state.round_number), *more)
    return settled, (*actions, *more)


def _try_again(state: SummedState, here: frozenset[int]) -> Step | None:
    """Ask those of a gateway again whose updates came to circles that failed, where none was summed.

    Its root waits for no other of its phones. `here` have sent an update, and told nothing that opens one.
    """
    again = here & state.present
    enough = len(again) >= state.fewest
    if not (state.rules.total and enough) or state.accepted or state.exhausted:
        return None
    late = round_machine.cancel(state, state.outstanding - again)
    state = replace(state, attempt=state.attempt + 1, cohort=state.failed | again)
    return state, (*late, OpenRound(state.round_number, state.attempt, tuple(sorted(again))))


def _settle(state: SummedState) -> Step:
    """Close the round, try it again, or pause; where those who may be asked make no circle, no attempt can help."""
    anybody = frozenset(range(state.rules.phones)) - state.accepted - state.failed
    if len(anybody) < state.fewest and len(state.accepted) < state.rules.min_updates:
        if state.resumed == state.round_number:
            close = CloseRound(state.round_number, tuple(sorted(state.accepted)))
            return replace(state, phase=Phase.CLOSING), (close,)
        pause = Pause(
            f"round {state.round_number} has {len(state.accepted)} of at least {state.rules.min_updates} updates, and"
            f" {f'all but {len(anybody)}, fewer than a circle needs,' if anybody else 'all other phones'} of the run"
            " rest until the next one: resumed, the run closes it with what it has"
        )
        return replace(state, phase=Phase.PAUSED), (pause,)
    return round_machine.settle(state)  # type: ignore[return-value]  # a state keeps its kind


def _answered(state: SummedState, event: Answered) -> Step:
    number = state.place(event.shard)
    if (event.round_number, event.attempt) != (state.round_number, state.attempt) or number is None:
        return state, ()
    return _when_over(*_with_circle(state, number, circles.Answered(event.shard, event.version)))


def _expired(state: SummedState, event: Expired) -> Step:
    if (event.round_number, event.attempt) != (state.round_number, state.attempt):
        return state, ()
    return _when_over(*_with_circle(state, event.circle, circles.Expired(event.version)))


def _charge(state: SummedState, event: Opened) -> SummedState:
    """Charge who is in a sum that could be opened, once, whatever comes of it."""
    if event.price is None:
        return state
    owing = state.circles[event.circle].survivors - state.charged
    return replace(state, account=state.account.charged(owing, event.price), charged=state.charged | owing)


def _note_opened(state: SummedState, event: Opened) -> Step:
    """Charge for a sum that was being opened when the run was paused."""
    if (event.round_number, event.attempt) != (state.round_number, state.attempt):
        return state, ()
    return _charge(state, event), ()


def _note_answered(state: SummedState, event: Answered) -> Step:
    """Open what the last answers to a run that is paused open: whoever keeps them could, so that it is to be paid."""
    number = state.place(event.shard)
    if (event.round_number, event.attempt) != (state.round_number, state.attempt) or number is None:
        return state, ()
    if state.circles[number].phase is not CirclePhase.OPENING:
        return state, ()
    state, actions = _with_circle(state, number, circles.Answered(event.shard, event.version))
    return state, tuple(action for action in actions if isinstance(action, OpenCircle))


def _opened(state: SummedState, event: Opened) -> Step:
    """Count those whose sum is open, and tell the others of the circle that they are not in it."""
    if (event.round_number, event.attempt) != (state.round_number, state.attempt):
        return state, ()
    state, actions = _with_circle(_charge(state, event), event.circle, event.outcome)
    circle = state.circles[event.circle]
    if circle.phase is CirclePhase.SUMMED:
        counted = circle.survivors
        # Who fell silent after its upload.
        left_out = state.arrived & frozenset(circle.members) - counted
        arrived = state.arrived - counted - left_out
        state = replace(state, accepted=state.accepted | counted, arrived=arrived, failed=state.failed | left_out)
        actions += (Count(state.round_number, event.circle, tuple(sorted(counted))),)
        actions += round_machine.cancel(state, left_out)
    return _when_over(state, actions)


def _lose(state: SummedState, event: Lost | Fail | GaveUp) -> Step:
    """Wait for no answer of a phone that is gone, or whose answer cannot be one, where others will do."""
    number = state.place(event.shard)
    if isinstance(event, Lost | GaveUp):
        state = replace(state, present=state.present - {event.shard})
    if number is None:
        return state, ()
    return _when_over(*_with_circle(state, number, circles.Gone(event.shard)))


def _resume(state: SummedState, event: Resume) -> Step:
    """Go on with the circles that the disk gave, and ask again whose update is awaited."""
    actions: tuple[Action, ...] = ()
    state = replace(state, resumed=state.round_number, began=state.attempt)
    for number, circle in enumerate(state.circles):
        state, more = _put(state, number, *circle_machine.resumed(circle))
        actions += more
        if state.phase is Phase.UNMASKING:
            # Of a circle that had too few nothing was sent: it fails again.
            state, more = _with_circle(state, number, circles.UploadsOver())
            actions += more
    if state.phase is Phase.UNMASKING:
        return _when_over(state, actions)
    if (state.circles or state.rules.total) and state.enough:
        state, more = _end_uploads(state)
        return state, (*actions, *more)
    return state, (*actions, OpenRound(state.round_number, state.attempt, tuple(sorted(state.outstanding))))


def _join(state: SummedState, event: Joined) -> Step:
    state = replace(state, present=state.present | {event.shard})
    number = state.place(event.shard)
    if number is None:
        return state, _when_here(state)
    if state.phase is Phase.OPEN and event.shard in state.outstanding:
        return state, (Assign(event.shard),)
    return _with_circle(state, number, circles.Back(event.shard))


_OF_CIRCLES: Mapping[type, Callable[..., tuple[RunState, tuple[Action, ...]]]] = {
    Joined: _join,
    Lost: _lose,
    Answered: _answered,
    Expired: _expired,
    Opened: _opened,
    Resume: _resume,
    Asked: _asked,
}

TABLE: Mapping[Phase, Mapping[type, Callable[..., Any]]] = {
    **round_machine.TABLE,
    Phase.GATHERING: {**round_machine.TABLE[Phase.GATHERING], Asked: _asked_gathering},
    Phase.OPEN: {
        **round_machine.TABLE[Phase.OPEN],
        **_OF_CIRCLES,
        Accept: _arrive,
        Fail: _fail,
        GaveUp: _give_up,
        Deadline: _deadline,
    },
    Phase.UNMASKING: {**round_machine.EVERYWHERE, **_OF_CIRCLES, Fail: _lose, GaveUp: _lose},
    Phase.PAUSED: {**round_machine.TABLE[Phase.PAUSED], Answered: _note_answered, Opened: _note_opened},
}


def _deal(state: SummedState, actions: tuple[Action, ...]) -> Step:
    """Deal the circles of an attempt that opens; of an earlier one nothing is kept that is in no sum."""
    opens = next((action for action in actions if isinstance(action, OpenRound)), None)
    attempt = (state.round_number, state.attempt)
    if opens is None or attempt == state.dealt:
        return state, actions
    plan = state.plans.at(state.round_number)
    if plan.masked and not state.present.issuperset(opens.cohort):
        return replace(state, circles=(), arrived=frozenset()), actions
    members = plan.deal(opens.cohort, state.rules.seed, *attempt)
    dealt = tuple(circle_of(each, plan) for each in members)
    state = replace(state, circles=dealt, dealt=attempt, arrived=frozenset())
    if dealt or not state.rules.total or state.phase is not Phase.OPEN:
        return state, actions
    # Of a gateway nobody else can be asked, and its root waits for it.
    return replace(state, phase=Phase.CLOSING, cohort=frozenset()), (
        OpenRound(*attempt, ()),
        CloseRound(state.round_number, ()),
    )


def advance(state: SummedState, event: Event) -> Step:
    """Return the state after `event` and what must be done now, in that order."""
    after, actions = handled(TABLE[state.phase].get(type(event)), state, event)
    assert isinstance(after, SummedState), "a state keeps its kind"
    return _deal(after, actions)
