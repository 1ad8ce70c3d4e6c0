"""Who has which task: phones are asked, called off, and waited for until the deadline."""

import asyncio

from featherfed.server.config import RunConfig
from featherfed.server.phones.fleet import Fleet
from featherfed.server.rounds.circle_book import CircleBook
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.downlink import Downlink
from featherfed.server.rounds.events import Deadline
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.run_clock import RunClock
from featherfed.server.run_tasks import RunTasks
from featherfed.server.watchers.watcher import Watcher


class Assignments:
    """The tasks of all phones, by shard. `late` are the shards that were called off in the current round."""

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        downlink: Downlink,
        book: CircleBook,
        watcher: Watcher,
        clock: RunClock,
        tasks: RunTasks,
    ) -> None:
        self._config = config
        self._book = book
        self._fleet = fleet
        self._downlink = downlink
        self._watcher = watcher
        self._clock = clock
        self._tasks = tasks
        self.late: set[int] = set()
        self._given: dict[int, int] = {}  # by shard: the round of its last task
        self._given_s: dict[int, float] = {}  # and when it was given first
        self._deadline: asyncio.TimerHandle | None = None

    def assign(self, shard: int, current: CurrentRound) -> None:
        """Give a phone that is connected the task that it needs, if it needs one."""
        phone, state = self._fleet.connections.get(shard), current.state
        if phone is None:
            return
        circle = self._book.message(shard, state)
        # A phone that came back with a finished update that counts needs no task: it is about to send it. Where circles
        # are summed it needs to know with whom, and a phone that is in none is not asked.
        if circle is None and (isinstance(state, SummedState) or state.wants(phone.pending_round, shard)):
            return
        # Who was in the middle of a round whose update counts goes on with it.
        given = self._given.get(shard, state.round_number)
        if not (state.wants(given, shard) and phone.held_version == given - 1):
            given = state.round_number
        if self._given.get(shard) != given:
            self._given_s[shard] = self._clock.now_s()
        self._given[shard] = given
        self._tasks.spawn(self._downlink.deliver(phone, given, circle))

    def cancel(self, round_number: int, shards: tuple[int, ...]) -> None:
        """Tell these phones to stop their work on a round."""
        for shard in shards:
            self._watcher.cancelled(shard, round_number)
            if phone := self._fleet.connections.get(shard):
                self.late.add(shard)
                phone.forgets(round_number)
                self._tasks.spawn(self._downlink.cancel(phone, round_number))

    def answered(self, shard: int) -> float:
        """Note that a phone's update counts; return the seconds since it was given its task."""
        self.late.discard(shard)
        now_s = self._clock.now_s()
        return now_s - self._given_s.get(shard, now_s)

    def start_deadline(self, deadline: Deadline, current: CurrentRound) -> None:
        """Post this deadline in time, in place of an earlier one."""
        self.stop_deadline()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._config.deadline, self._time_is_up, deadline, current)

    def stop_deadline(self) -> None:
        """Post no deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_is_up(self, deadline: Deadline, current: CurrentRound) -> None:
        waiting = any(shard in self._fleet.connections for shard in current.state.missing)
        if self._config.gateways and deadline.round_number == 1 and waiting:
            # Gateways come before their phones. A server without gateways waits for all phones before its first round,
            # and so does a root: for as long as a gateway of the cohort is connected.
            self.start_deadline(deadline, current)
        else:
            self._tasks.spawn(current.post_alone(deadline))
