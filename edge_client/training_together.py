"""Trainings of several phones of one process as one batch, where they are alike enough; all others are left undone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import SgdLearner, Trained
from featherfed.wire.messages import Task

F32 = npt.NDArray[np.float32]


def train_together(
    asked: Sequence[tuple[SgdLearner, F32, Task, F32 | None]],
) -> list[Trained | None]:
    """Return what `SgdLearner.train` would for each, to rounding; None for those that must be trained by themselves.

    The learners are of one problem and share its module. By themselves train those with a learner of their own or in
    a part of the weights, those whose settings nobody else has, and all where something cannot be computed for many at
    once, or fails: whatever is wrong is raised there as it is without a batch.
    """
    from featherfed.learning.together import train_as_one

    alike: dict[str, list[int]] = {}
    for number, (learner, _, task, _) in enumerate(asked):
        if (training := learner.plain_training(task)) is not None:
            alike.setdefault(repr(training), []).append(number)
    results: list[Trained | None] = [None] * len(asked)
    for numbers in alike.values():
        if len(numbers) < 2:
            continue
        learners, weights, tasks, _ = zip(*(asked[number] for number in numbers), strict=True)
        training = learners[0].plain_training(tasks[0])
        assert training is not None, "it was looked at"
        keys = [learner.key(task) for learner, task in zip(learners, tasks, strict=True)]
        try:
            updates = train_as_one([learner.trainer for learner in learners], weights, training, keys)
        except (Exception, SystemExit):
            continue
        for number, update in zip(numbers, updates, strict=True):
            learner, _, task, residual = asked[number]
            results[number] = None if update is None else learner.encoded(update, task, residual)
    return results
