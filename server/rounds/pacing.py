"""Who need not stay: phones are told when they are asked next, and hold no connection until then.

Pace steering (Bonawitz et al. 2019, "Towards Federated Learning at Scale", section 2.3). Cohorts are drawn of all
phones, there or not, by the run's seed alone, so a phone's next round is known now. When that round will open is
guessed from how long rounds take: a phone that comes early waits, and a round waits for one that comes late.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Collection

from websockets.exceptions import ConnectionClosed

from featherfed.errors import ProblemError
from featherfed.server.phones.fleet import Fleet
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.async_machine import AsyncState
from featherfed.server.rounds.machines import State
from featherfed.server.rounds.round_machine import Phase, Rules
from featherfed.server.run_clock import RunClock
from featherfed.server.run_tasks import RunTasks
from featherfed.server.watchers.watcher import Watcher
from featherfed.wire.closing import LEAST_REST_S, Close, rest_reason
from featherfed.wire.messages import Finish

AHEAD = 64
"""So many rounds are looked ahead; a phone that is asked in none of them comes back then to be told more."""


class Pacing(Watcher):
    """Sends phones away from a run whose cohorts are drawn of all phones; from any other run, none."""

    def __init__(self, rules: Rules, fleet: Fleet, clock: RunClock, tasks: RunTasks) -> None:
        self._rules = rules
        self._fleet = fleet
        self._clock = clock
        self._tasks = tasks
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)
        self._attempt = 0
        self._took_s = 0.0
        """How long the last round took."""
        self._drawn: dict[int, frozenset[int]] = {}
        self._drawing = threading.Lock()

    def round_opened(self, round_number: int, attempt: int, cohort: Collection[int]) -> None:
        """Send those away who are connected and not asked."""
        opened, self._attempt = (round_number, self._clock.now_s()), attempt
        if round_number != self._last[0]:
            self._took_s = opened[1] - self._last[1]
            self._last = opened
        self._first = self._first or opened
        if self._rules.of_all:
            for shard, phone in self._fleet.connections.items():
                if shard not in cohort:
                    self._tasks.spawn(self._send_away(phone, round_number))

    def release(self, phone: PhoneConnection, state: State) -> None:
        """Send a phone away, unless it is awaited, or no round is played yet."""
        if not self._rules.of_all or isinstance(state, AsyncState) or state.phase not in (Phase.OPEN, Phase.CLOSING):
            return
        if not (state.awaits(phone.shard) or state.holds(state.round_number, phone.shard)):
            self._tasks.spawn(self._send_away(phone, state.round_number))

    async def _send_away(self, phone: PhoneConnection, round_number: int) -> None:
        loop, attempt = asyncio.get_running_loop(), self._attempt
        try:
            following = await loop.run_in_executor(None, self._next_round, phone.shard, round_number)
        except ProblemError:
            # The run pauses with this sentence when that round would open; until then phones stay.
            return
        if following == round_number + 1 or (self._last[0], self._attempt) != (round_number, attempt):
            # It has hardly left before it would be asked; or another attempt or round has opened meanwhile, which
            # perhaps asks it, and has looked at it too.
            return
        phone.sent_away = True
        with contextlib.suppress(ConnectionClosed):
            if following > self._rules.rounds:
                await phone.send(Finish())
                await phone.close(Close.DONE)
            else:
                phone.rests_s = self._seconds_until(following)
                await phone.close(Close.RESTS, rest_reason(following, phone.rests_s))

    def _next_round(self, shard: int, round_number: int) -> int:
        """Return the next round that asks a phone; the one after those that are looked at where none does."""
        last = min(round_number + AHEAD, self._rules.rounds)
        # Many ask at once when a round opens, each in a thread of its own: each round is drawn by one of them.
        with self._drawing:
            for over in [number for number in self._drawn if number <= round_number]:
                del self._drawn[over]
            for later in range(round_number + 1, last + 1):
                if later not in self._drawn:
                    self._drawn[later] = frozenset(self._rules.drawn(later))
                if shard in self._drawn[later]:
                    return later
        return last + 1

    def _seconds_until(self, round_number: int) -> float:
        """Guess when a round opens: rounds take what they took in the mean, the first what it has taken so far.

        Or what the last one took, if that is less: who comes too early comes once more, for some hundred bytes, and who
        comes too late holds a round up. A round that takes longer may take as long again: who comes too early meanwhile
        comes rarely, and not each second until the deadline.
        """
        last, last_s = self._last
        first, first_s = self._first or self._last
        so_far_s = self._clock.now_s() - last_s
        took_s = min((last_s - first_s) / (last - first), self._took_s) if last > first else so_far_s
        left_s = took_s - so_far_s if so_far_s < took_s else so_far_s
        return max(LEAST_REST_S, left_s + took_s * (round_number - last - 1))


def first_rounds(rules: Rules) -> dict[int, int]:
    """Return the first round of each phone that is asked at all, where cohorts are drawn of all phones."""
    firsts: dict[int, int] = {}
    for number in itertools.takewhile(lambda _: len(firsts) < rules.phones, range(1, rules.rounds + 1)):
        for shard in rules.drawn(number):
            firsts.setdefault(shard, number)
    return firsts
