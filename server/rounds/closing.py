"""The close of a round: its sum becomes the next version, on the disk before anybody hears of it."""

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
from featherfed.server.rounds.events import Closed, CloseRound
from featherfed.server.rounds.round_machine import RunState
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.run_tasks import RunTasks, in_thread
from featherfed.server.storage.circle_rows import drop_circles
from featherfed.server.storage.privacy_rows import put_charges, put_privacy
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.spent import Spent
from featherfed.server.storage.store import Statement, close_round, drop_chunks, put_value
from featherfed.server.watchers.watcher import RoundSummary, Watcher


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
        watcher: Watcher,
        tasks: RunTasks,
    ) -> None:
        self._config = config
        self._model = model
        self._storage = storage
        self._uploads = uploads
        self._connections = connections
        self._watcher = watcher
        self._tasks = tasks
        self._unheard = 0
        """So many of the last rounds had no phone's update: gateways may hand up empty sums."""

    async def close(self, action: CloseRound, current: CurrentRound, late: Set[int]) -> None:
        """Close a round and post `Closed`; `late` are the shards that were called off in it.

        On the disk: first a file of the new version, then the database's word for it, together with the round's figures
        and without its updates' bytes, then the file's final name. A server that is killed between them goes on from
        the version that the database names.
        """
        loop, folder = asyncio.get_running_loop(), self._storage.folder
        number = action.round_number
        async with current.lock:
            if folder.durable:
                # A server may wait for its next phones for long; in virtual time they take it all again at once.
                await loop.run_in_executor(None, give_back_the_rest)
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
            # Every accepted update of the round was queued for the disk before this: the close never gets ahead.
            await self._storage.commits.write(
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
                *(() if price is None else price.rows),
                *([] if self._model.sum.circles is None else drop_circles(number)),
            )
            await in_thread(lambda: folder.promote(closing.version, best=closing.best))
            if self._config.secure:
                # What was deleted is overwritten in the file; the log has it still.
                await in_thread(self._storage.store.empty_log)
            self._uploads.forget_round(number)
            self._watcher.round_closed(summary)
            reached = self._config.reached(summary.measures, summary.figures)
            current.post(Closed(number, reached or closing.over, closing.following))
            current.lock.notify_all()
            self._unheard = self._unheard + 1 if closing.phones == 0 else 0
            if self._unheard > self._config.max_retries and number < self._config.rounds:
                self._tasks.end(
                    f"no gateway had an update of a phone in the last {self._unheard} rounds, up to {number}: see"
                    " whether phones reach their gateways"
                )

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
        state, ledger, evaluation = current.state, self._storage.ledger, closing.evaluation
        number, num_late = state.round_number, len(late - state.accepted)
        return RoundSummary(
            round_number=number,
            rounds=self._config.rounds,
            cohort=len(state.cohort),
            accepted=state.count,
            late=num_late,
            failed=max(0, len(state.missing) - num_late),
            loss=evaluation.loss if evaluation else None,
            metrics=evaluation.metrics if evaluation else {},
            seconds=current.seconds(),
            spent=Spent.of(ledger.total("uplink", number), ledger.total("downlink", number)),
            phones=closing.phones,
            measures=self._model.measures,
        )
