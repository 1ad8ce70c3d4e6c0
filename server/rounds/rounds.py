"""The round machine's hands: feeds it events, and does what it says with timers, tasks, files and the database.

What must not be torn apart happens under one lock (`Uploads.folding`): an update is folded and counted while no round
can close, and a round closes while nothing can be folded.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from featherfed.errors import ProblemError
from featherfed.server.allocator import give_back_the_rest
from featherfed.server.config import RunConfig
from featherfed.server.model.aggregation import Aggregator, Closing
from featherfed.server.phones.fleet import Fleet
from featherfed.server.rounds.downlink import Downlink
from featherfed.server.rounds.round_machine import (
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
    OpenRound,
    Pause,
    Phase,
)
from featherfed.server.rounds.standing import Standing, advance, put_facts
from featherfed.server.rounds.uploads import Uploads
from featherfed.server.storage.commits import Commits
from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.spent import Spent
from featherfed.server.storage.store import Statement, close_round, drop_chunks, put_round, put_value
from featherfed.server.watchers.watcher import RoundSummary, Watcher


class Rounds:
    """The rounds of one run: `state` is the machine's."""

    def __init__(
        self,
        config: RunConfig,
        standing: Standing,
        *,
        folder: RunFolder,
        aggregator: Aggregator,
        commits: Commits,
        ledger: Ledger,
        uploads: Uploads,
        downlink: Downlink,
        fleet: Fleet,
        watcher: Watcher,
        clock_s: Callable[[], float],
        count: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        end: Callable[[str | None], None],
    ) -> None:
        """`count()` brings the ledger up to the sockets, `spawn` runs a task, `end` is told why the run is over."""
        self.state = standing.state
        self._config = config
        self._folder = folder
        self._aggregator = aggregator
        self._commits = commits
        self._ledger = ledger
        self._uploads = uploads
        self._downlink = downlink
        self._fleet = fleet
        self._watcher = watcher
        self._clock_s = clock_s
        self._count = count
        self._spawn = spawn
        self._end = end
        self._started_s = standing.round_start_s
        self._deadline: asyncio.TimerHandle | None = None
        self._late: set[int] = set()
        self._given: dict[int, int] = {}  # by shard: the round of its last task
        self._given_s: dict[int, float] = {}  # and when it was given first
        self._knows_round = asyncio.Event()
        self._stopped = False
        if not (standing.state.rules.total and standing.state.phase is Phase.GATHERING):
            self._knows_round.set()

    @property
    def current(self) -> int:
        """The round that bytes belong to now: before the first one, the first."""
        return max(1, self.state.round_number)

    @property
    def open(self) -> bool:
        """Whether updates are awaited."""
        return self.state.phase is Phase.OPEN

    async def answers(self) -> bool:
        """Return whether updates are answered now; waits as long as a gateway does not know which round it is in.

        It may have moved here in the middle of one: an update of that round must not be sent away.
        """
        await self._knows_round.wait()
        return not self._stopped

    def stop(self) -> None:
        """Stop the deadline, and let go of who waits for a round."""
        self._stop_deadline()
        self._stopped = True
        self._knows_round.set()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def step(self, event: Event) -> None:
        """Advance the machine and do what it says; callers whose event may close a round hold the lock."""
        self.state, actions = advance(self.state, event)
        for action in actions:
            self._do(action)

    async def step_alone(self, event: Event) -> None:
        """Take the lock for one event."""
        async with self._uploads.folding:
            self.step(event)

    async def fail(self, event: Fail | GaveUp) -> None:
        """Note that a phone sent what cannot count, or that it cannot train."""
        async with self._uploads.folding:
            self.step(event)
            if event.shard in self.state.failed and self.state.phase is not Phase.GATHERING:
                self._commits.queue(self._put_round(), *self._uploads.waste_unwanted())

    async def ask(self, round_number: int) -> None:
        """Begin the round that a gateway's root asks for, or close an earlier one with what it has."""
        gathering = self.state.phase is Phase.GATHERING
        await self.step_alone(Asked(round_number))
        if gathering:
            self._fleet.expect(self.state.present)

    def accepted(self, round_number: int, shard: int, examples: int) -> None:
        """Count an update that is folded; its caller holds the lock."""
        self._late.discard(shard)
        seconds = self._clock_s() - self._given_s.get(shard, self._clock_s())
        self.step(Accept(shard, round_number, examples, seconds))
        self._watcher.update_accepted(shard, round_number, self.state.count, self._config.closing_updates)

    def _do(self, action: Action) -> None:
        match action:
            case OpenRound(round_number, attempt, cohort):
                self._open_round(round_number, attempt, cohort)
            case Assign(shard):
                self._assign(shard)
            case CancelPhones(round_number, shards):
                self._commits.queue(*self._uploads.waste_unwanted())
                for shard in shards:
                    self._watcher.cancelled(shard, round_number)
                    if phone := self._fleet.connections.get(shard):
                        self._late.add(shard)
                        self._spawn(self._downlink.cancel(phone, round_number))
            case CloseRound():
                self._stop_deadline()
                self._spawn(self._close_round(action))
            case Finished():
                self._commits.queue(*self._uploads.waste_unwanted())
                self._end(None)
            case Pause(reason):
                self._end(reason)

    def _open_round(self, round_number: int, attempt: int, cohort: tuple[int, ...]) -> None:
        if self._aggregator.open_round != round_number:
            self._aggregator.open(round_number)
            self._started_s = self._clock_s()
            self._late.clear()
        facts = [put_facts(self.state.facts)] if self.state.facts else []
        self._commits.queue(self._put_round(), *facts)
        self._watcher.round_opened(round_number, attempt, self.state.cohort)
        self._knows_round.set()
        self._stop_deadline()
        self._let_run(Deadline(round_number, attempt))
        for shard in cohort:
            self._assign(shard)

    def _let_run(self, deadline: Deadline) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._config.deadline, self._time_is_up, deadline)

    def _time_is_up(self, deadline: Deadline) -> None:
        waiting = any(shard in self._fleet.connections for shard in self.state.missing)
        if self._config.gateways and deadline.round_number == 1 and waiting:
            # Its phones gather: as long as one server would, it waits for all of them before the first round.
            self._let_run(deadline)
        else:
            self._spawn(self.step_alone(deadline))

    def _put_round(self) -> Statement:
        state = self.state
        return put_round(state.round_number, state.attempt, state.cohort, state.failed, self._started_s)

    def _assign(self, shard: int) -> None:
        phone, state = self._fleet.connections.get(shard), self.state
        # A phone that came back with a finished update that counts needs no task: it is about to send it.
        if phone is None or state.wants(phone.pending_round, shard):
            return
        # Who was in the middle of a round whose update counts goes on with it.
        given = self._given.get(shard, state.round_number)
        if not (state.wants(given, shard) and phone.held_version == given - 1):
            given = state.round_number
        if self._given.get(shard) != given:
            self._given_s[shard] = self._clock_s()
        self._given[shard] = given
        self._spawn(self._downlink.deliver(phone, given))

    async def _close_round(self, action: CloseRound) -> None:
        loop = asyncio.get_running_loop()
        number = action.round_number
        async with self._uploads.folding:
            await loop.run_in_executor(None, give_back_the_rest)
            try:
                closing = await loop.run_in_executor(None, self._aggregator.close, number)
            except ProblemError as error:
                # A user's rule: what was accepted stays on the disk, and the round is closed anew once it is mended.
                self._end(str(error))
                return
            await loop.run_in_executor(None, self._folder.write_version, closing.version, self._aggregator.save)
            self._count()
            summary = self._summary(action, closing)
            # Every accepted update of the round was queued for the disk before this: the close never gets ahead.
            await self._commits.write(
                close_round(
                    number,
                    seconds=summary.seconds,
                    late=summary.late,
                    failed=summary.failed,
                    loss=summary.loss,
                    metrics=summary.metrics,
                ),
                put_value("version", str(closing.version)),
                *([put_value("best", str(closing.version))] if closing.best else []),
                drop_chunks(number),
            )
            await loop.run_in_executor(None, lambda: self._folder.promote(closing.version, best=closing.best))
            self._uploads.forget_round(number)
            self._watcher.round_closed(summary)
            reached = self._config.reached(summary.measures, summary.figures)
            self.step(Closed(number, reached or closing.over, closing.following))
            self._uploads.folding.notify_all()

    def _summary(self, action: CloseRound, closing: Closing) -> RoundSummary:
        number, state = action.round_number, self.state
        late = len(self._late - state.accepted)
        evaluation = closing.evaluation
        return RoundSummary(
            round_number=number,
            rounds=self._config.rounds,
            cohort=len(state.cohort),
            accepted=state.count,
            late=late,
            failed=max(0, len(state.missing) - late),
            loss=evaluation.loss if evaluation else None,
            metrics=evaluation.metrics if evaluation else {},
            seconds=self._clock_s() - self._started_s,
            spent=Spent.of(self._ledger.total("uplink", number), self._ledger.total("downlink", number)),
            phones=closing.phones,
            measures=self._aggregator.measures,
        )
