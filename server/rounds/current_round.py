"""The round that is played now: the machine's state, the lock that guards it, and the one way to change it.

Invariants, for all who hold it:

- `state` changes in `post` and `post_all` alone, each of which carries out the machine's actions before it returns.
- Whoever posts an event that may close a round holds `lock`, and so does whoever changes the sum of the round: an
  update is folded, queued for the disk and posted while no round can close, and a round closes while nothing can be
  folded. `Joined`, `Stop` and `Resume` need none: they close no round of which anything can be under way.
- Who closes a round or ends the run notifies `lock`: updates wait there for the next sum.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from featherfed.server.rounds.events import Accept, Action, Event
from featherfed.server.rounds.machines import State, accept_all, advance
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.run_clock import RunClock
from featherfed.server.storage.store import Statement, put_round


class Hands(Protocol):
    """What carries out the machine's actions (`action_runner`)."""

    def carry_out(self, action: Action, current: "CurrentRound") -> None:
        """Do what the machine says, or begin it: returns at once."""

    def stop(self) -> None:
        """Begin nothing more by itself."""


class CurrentRound:
    """`state` is the machine's; `started_s` when the round opened, by the run's clock."""

    def __init__(self, state: State, hands: Hands, clock: RunClock, *, started_s: float) -> None:
        self.state = state
        self.lock = asyncio.Condition()
        self._hands = hands
        self._clock = clock
        self._started_s = started_s
        self._known = asyncio.Event()
        self._stopped = False
        if not (state.rules.total and state.phase is Phase.GATHERING):
            self._known.set()

    def post(self, event: Event) -> None:
        """Advance the machine and do what it says."""
        self._enter(*advance(self.state, event))

    def post_all(self, events: Sequence[Accept]) -> None:
        """Advance the machine by updates that became durable together, and do what it says."""
        self._enter(*accept_all(self.state, events))

    def _enter(self, state: State, actions: tuple[Action, ...]) -> None:
        self.state = state
        if self.state.phase in (Phase.OPEN, Phase.UNMASKING, Phase.CLOSING):
            self._known.set()
        for action in actions:
            self._hands.carry_out(action, self)

    async def post_alone(self, event: Event) -> None:
        """Post an event under the lock."""
        async with self.lock:
            self.post(event)

    @property
    def number(self) -> int:
        """The round that bytes belong to now: before the first one, the first."""
        return self.state.round_number or 1

    @property
    def is_open(self) -> bool:
        """Whether the sum of the round is still being made."""
        return self.state.phase in (Phase.OPEN, Phase.UNMASKING)

    @property
    def is_closing(self) -> bool:
        """Whether the sum of the round is being made a model."""
        return self.state.phase is Phase.CLOSING

    @property
    def is_paused(self) -> bool:
        """Whether the run ends for now: what comes before its goodbye is not answered, and counts when resumed."""
        return self.state.phase is Phase.PAUSED

    @property
    def room(self) -> int:
        """How many more updates the sum takes: the machine closes it on the last of them."""
        return self.state.target - self.state.count

    def restart_clock(self) -> None:
        """Count the round's seconds from now on."""
        self._started_s = self._clock.now_s()

    def seconds(self) -> float:
        """Return how long the round has been open."""
        return self._clock.now_s() - self._started_s

    def row(self) -> Statement:
        """Return what keeps the round as it stands: its attempt, who was asked and who failed."""
        state = self.state
        return put_round(state.round_number, state.attempt, state.cohort, state.failed, self._started_s)

    async def answers(self) -> bool:
        """Return whether updates are answered; waits as long as a gateway does not know which round its root is in.

        It may have moved here in the middle of one: an update of that round must not be sent away.
        """
        await self._known.wait()
        return self.answers_now

    @property
    def answers_now(self) -> bool:
        """Whether updates are answered, as far as that is known now."""
        return self._known.is_set() and not self._stopped and not self.is_paused

    def stop(self) -> None:
        """Stop the deadline, and let go of who waits in `answers`."""
        self._hands.stop()
        self._stopped = True
        self._known.set()
