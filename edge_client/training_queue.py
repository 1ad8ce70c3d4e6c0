"""Phones of one process take turns at its GPU; those that wait when it is free train as one batch, where that pays."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import Learner, SgdLearner, Trained
from featherfed.edge_client.leaving import LeavingLearner, PhoneLeftError
from featherfed.edge_client.training_together import Worth, train_together, worth_a_batch
from featherfed.wire.messages import Task

F32 = npt.NDArray[np.float32]


@dataclass(eq=False, slots=True)
class _Waiting:
    learner: Learner
    weights: F32
    task: Task
    residual: F32 | None
    stopped: Callable[[], bool]
    future: "asyncio.Future[Trained | None]"
    alone: bool = False
    """Whether a batch with it did not come to its end."""
    told: bool = False


class TrainingQueue:
    """Has phones of one event loop trained (`Trains`), by a thread of its default executor, which must have only one.

    A batch that has begun is not stopped: who is told to stop meanwhile gets its update when all have theirs.
    """

    def __init__(self, worth: Worth = worth_a_batch) -> None:
        self._worth = worth
        self._waiting: deque[_Waiting] = deque()

    def __call__(
        self, learner: Learner, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]
    ) -> "asyncio.Future[Trained | None]":
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Trained | None] = loop.create_future()
        try:
            if isinstance(learner, LeavingLearner):
                learner = learner.stays(task)
        except PhoneLeftError as left:
            future.set_exception(left)
            return future
        self._waiting.append(_Waiting(learner, weights, task, residual, stopped, future))
        # A turn for each who waits: a batch leaves the turns of the others with nothing to do.
        loop.run_in_executor(None, self._turn, loop)
        return future

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Train those who wait as one batch, or the first of them."""
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        # Nobody may be lost: whatever happens to one, the others are told of their own.
        try:
            self._together(loop, [each for each in waiting if not (each.alone or each.stopped())])
        finally:
            left = [each for each in waiting if not (each.told or each.future.done())]
            self._waiting.extendleft(reversed(left[1:]))
            for first in left[:1]:
                _train(loop, first)

    def _together(self, loop: asyncio.AbstractEventLoop, waiting: list[_Waiting]) -> None:
        asked = [
            (each.learner, each.weights, each.task, each.residual)
            for each in waiting
            if isinstance(each.learner, SgdLearner)
        ]
        if len(asked) != len(waiting) or len(asked) < 2:
            return
        for number, trained in train_together(asked, self._worth).items():
            each = waiting[number]
            each.alone, each.told = trained is None, trained is not None
            if trained is not None:
                _tell(loop, each.future, trained)


def _train(loop: asyncio.AbstractEventLoop, waiting: _Waiting) -> None:
    """Train one by itself."""
    try:
        outcome = waiting.learner.train(waiting.weights, waiting.task, waiting.residual, waiting.stopped)
    except BaseException as error:
        # A loss of the user's may end the program: its phone says so.
        _tell(loop, waiting.future, error)
    else:
        _tell(loop, waiting.future, outcome)


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Trained | None]", outcome: Trained | BaseException | None
) -> None:
    def tell() -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    # The swarm may have ended meanwhile.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)
