"""What the versions of a run are worth: each is evaluated beside the round after its own, and told when it is known.

One at a time, in the order of rounds: an evaluation is told before the next round closes, which waits for it, and
before the run ends. Until then the database says what is still to be told, so that a server that is killed meanwhile
evaluates the version anew when it is resumed.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from featherfed.errors import ProblemError
from featherfed.server.config import RunConfig
from featherfed.server.model.evaluation_work import UnderWay
from featherfed.server.model.run_model import RunModel
from featherfed.server.run_tasks import RunTasks, in_thread
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import Statement, put_evaluation, put_value
from featherfed.server.watchers.watcher import RoundSummary, Watcher

UNTOLD = "untold"
"""What the database calls the summary of a round whose version is being evaluated; empty where none is."""


def put_untold(summary: RoundSummary) -> Statement:
    """Note that a round is closed, and that its version is to be evaluated."""
    return put_value(UNTOLD, msgspec.json.encode(replace(summary, measures=())).decode())


def untold_in(values: Mapping[str, str]) -> RoundSummary | None:
    """Return what `put_untold` kept, if it is not told yet."""
    return msgspec.json.decode(text, type=RoundSummary) if (text := values.get(UNTOLD)) else None


class Evaluations:
    """Has versions evaluated, and tells what comes of it."""

    def __init__(
        self, config: RunConfig, model: RunModel, storage: RunStorage, watcher: Watcher, tasks: RunTasks
    ) -> None:
        self._config = config
        self._model = model
        self._storage = storage
        self._watcher = watcher
        self._tasks = tasks
        self._under_way: UnderWay | None = None
        self._telling: asyncio.Task[None] | None = None
        self._failed = False
        self.reached = False
        """Whether the version that was told last has reached the run's target."""

    def begin(self, summary: RoundSummary, version: int, *, due: bool) -> None:
        """Tell that a round's version is published, and have it evaluated if that is due; returns at once."""
        self._watcher.version_published(summary)
        if due:
            self.take_up(summary, version)
        else:
            self._note(summary)

    def take_up(self, summary: RoundSummary, version: int) -> None:
        """Have the newest version evaluated, that of a round that is not told yet; returns at once."""
        self._under_way = self._model.evaluation()
        told = replace(summary, measures=self._model.measures)
        self._telling = self._tasks.spawn(self._tell(told, version, self._under_way))

    async def told(self) -> bool:
        """Wait until all is told; return whether the run may go on: not where an evaluation failed."""
        if self._under_way is not None:
            self._under_way.wanted()
        if self._telling is not None:
            await self._telling
        return not self._failed

    async def _tell(self, summary: RoundSummary, version: int, under_way: UnderWay | None) -> None:
        """Write what an evaluation comes to, and tell it; the best version's file is named when the disk says so."""
        kept, best = [put_value(UNTOLD, "")], False
        if under_way is not None:
            try:
                evaluation = await under_way.done
            except ProblemError as error:
                # A user's metric: the version is evaluated anew once it is mended, and the run resumed.
                self._failed = True
                self._tasks.end(str(error))
                return
            summary = replace(summary, loss=evaluation.loss, metrics=evaluation.metrics)
            kept.append(put_evaluation(summary.round_number, summary.loss, summary.metrics))
            if best := self._model.best_so_far(summary.figures):
                kept.append(put_value("best", str(version)))
        await self._storage.commits.write(*kept)
        if best:
            await in_thread(self._storage.folder.keep_best, version)
        self._under_way = self._telling = None
        self._note(summary)

    def _note(self, summary: RoundSummary) -> None:
        self.reached = self._config.reached(summary.measures, summary.figures)
        self._watcher.round_closed(summary)
