"""Who trains: a thread of the phone's own, unless an emulator of many phones has others do it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import Learner, Trained
from featherfed.wire.messages import Task

F32 = npt.NDArray[np.float32]


class Trains(Protocol):
    """Has a learner train for a task; the future is what `Learner.train` returns or raises."""

    def __call__(
        self, learner: Learner, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]
    ) -> "asyncio.Future[Trained | None]":
        """Begin to train."""


def in_a_thread(
    learner: Learner, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]
) -> "asyncio.Future[Trained | None]":
    """Train in a thread of the event loop's."""
    return asyncio.get_running_loop().run_in_executor(None, learner.train, weights, task, residual, stopped)
