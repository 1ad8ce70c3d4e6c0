"""The close of a round: its sum becomes the next version, on the disk before anybody hears of it.

What the version is worth is found out beside the next round (`evaluations`), unless that decides if there is one.
"""

import asyncio
import math
from collections.abc import Set
from dataclasses import dataclass, replace
from functools import partial

from featherfed.errors import ProblemError
from featherfed.privacy.accounting import Price
from featherfed.server.allocator import give_back_the_rest
from featherfed.server.config import RunConfig
from featherfed.server.model.run_model import Closing, RunModel
from featherfed.server.phones.connections import Connections
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.evaluations import Evaluations, put_untold
from featherfed.server.rounds.events import Closed, CloseRound
from featherfed.server.rounds.round_machine import RunState
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.run_tasks import RunTasks, in_thread
from featherfed.server.storage.circle_rows import drop_circles
from featherfed.server.storage.privacy_rows import put_charges, put_privacy
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.spent import Spent
from featherfed.server.storage.store import Statement, close_round, drop_chunks, put_value
from featherfed.server.watchers.watcher import RoundSummary


@dataclass(frozen=True, slots=True)
class _Price:
    """What a round says of its phones: ε with δ, of whoever has paid most up to it, and the rows of the account."""

    epsilon: float
    delta: float
    rows: tuple[Statement, ...]

    @property
    def sentence(self) -> str:
        """What the model's file says of it."""
        return f"differentially private for phones: ε {self.epsilon:.4g}, δ {self.delta:.4g}"


class RoundCloser:
    """Closes rounds, one at a time: under the lock of the current one."""

    def __init__(
        self,
        config: RunConfig,
        model: RunModel,
        storage: RunStorage,
        uploads: UploadRegister,
        connections: Connections,
        evaluations: Evaluations,
        tasks: RunTasks,
    ) -> None:
        self._config = config
        self._model = model
        self._storage = storage
        self._uploads = uploads
        self._connections = connections
        self._evaluations = evaluations
        self._tasks = tasks
        self._unheard = 0
        """So many of the last rounds had no phone's update: gateways may hand up empty sums."""

    async def close(self, action: CloseRound, current: CurrentRound, late: Set[int]) -> None:
        """Close a round and post `Closed`; `late` are the shards that were called off in it.

        On the disk: first a file of the new version, then the database's word for it, together with the round's figures
        and without its updates' bytes, then the file's final name. A server that is killed between them goes on from
        the version that the database names.

        The version before is told first: its weights and its file stay as they are until then.
        """
        loop, folder = asyncio.get_running_loop(), self._storage.folder
        number = action.round_number
        async with current.lock:
            if folder.durable:
                # A server may wait for its next phones for long; in virtual time they take it all again at once.
                await loop.run_in_executor(None, give_back_the_rest)
            if not await self._evaluations.told():
                return
            try:
                closing = await loop.run_in_executor(None, self._model.close, number)
            except ProblemError as error:
                # A user's rule: what was accepted stays on the disk, and the round is closed anew once it is mended.
                self._tasks.end(str(error))
                return
            price = await loop.run_in_executor(None, self._price, action, current)
            save = self._model.save if price is None else partial(self._model.save, note=price.sentence)
            await in_thread(folder.write_version, closing.version, save)
            self._connections.count()
            summary = self._summary(current, closing, late)
            summary = summary if price is None else replace(summary, epsilon=price.epsilon)
            untold = [put_untold(summary)] if closing.due else []
            # Every accepted update of the round was queued for the disk before this: the close never gets ahead.
            await self._storage.commits.write(
                close_round(number, seconds=summary.seconds, late=summary.late, failed=summary.failed),
                put_value("version", str(closing.version)),
                *untold,
                drop_chunks(number),
                *(() if price is None else price.rows),
                *([] if self._model.sum.circles is None else drop_circles(number)),
            )
            await in_thread(folder.promote, closing.version)
            if self._config.secure:
                # What was deleted is overwritten in the file; the log has it still.
                await in_thread(self._storage.store.empty_log)
            self._uploads.forget_round(number)
            self._evaluations.begin(summary, closing.version, due=closing.due)
            if not await self._go_on(current, over=closing.over, following=closing.following):
                return
            self._unheard = self._unheard + 1 if closing.phones == 0 else 0
            if self._unheard > self._config.max_retries and number < self._config.rounds:
                self._tasks.end(
                    f"no gateway had an update of a phone in the last {self._unheard} rounds, up to {number}: see"
                    " whether phones reach their gateways"
                )

    def take_up(self, untold: RoundSummary, current: CurrentRound) -> None:
        """Have the version evaluated that an earlier life of this server has published and not told; returns at once.

        Where that decides what follows its round, `Closed` is posted then. Called before any round can be closed.
        """
        self._evaluations.take_up(replace(untold, rounds=self._config.rounds), self._model.versions.version)
        if current.is_closing:
            self._tasks.spawn(self._end_of(current))

    async def _end_of(self, current: CurrentRound) -> None:
        async with current.lock:
            await self._go_on(current)

    async def _go_on(self, current: CurrentRound, *, over: bool = False, following: int = 0) -> bool:
        """Post `Closed`, once what it says is known; return False where it never will be."""
        number, reached = current.number, False
        if self._config.decides(number):
            if not await self._evaluations.told():
                return False
            reached = self._evaluations.reached
        current.post(Closed(number, reached or over, following))
        current.lock.notify_all()
        return True

    def _price(self, action: CloseRound, current: CurrentRound) -> _Price | None:
        """Return what a round costs whose updates are in its sum; of a run without a budget, None."""
        budget, number = current.state.rules.budget, action.round_number
        if budget is None:
            return None
        assert isinstance(current.state, RunState), "a budget is of rounds, which mode async has not"
        owing, price = current.state.owing, Price(budget.rho)
        epsilon = budget.epsilon(current.state.account.charged(owing, price))
        z = 1 / math.sqrt(2 * budget.rho)
        noted = put_privacy(number, epsilon=epsilon, delta=budget.delta, noise_multiplier=z)
        rows = *put_charges(number, owing, price), noted
        return _Price(epsilon, budget.delta, rows)

    def _summary(self, current: CurrentRound, closing: Closing, late: Set[int]) -> RoundSummary:
        state, ledger = current.state, self._storage.ledger
        number, num_late = state.round_number, len(late - state.accepted)
        return RoundSummary(
            round_number=number,
            rounds=self._config.rounds,
            cohort=len(state.cohort),
            accepted=state.count,
            late=num_late,
            failed=max(0, len(state.missing) - num_late),
            loss=None,
            metrics={},
            seconds=current.seconds(),
            spent=Spent.of(ledger.total("uplink", number), ledger.total("downlink", number)),
            phones=closing.phones,
            measures=self._model.measures,
        )
