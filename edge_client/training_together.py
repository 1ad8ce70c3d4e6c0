"""Trainings of several phones of one process as one batch, where they are alike enough; all others are left undone."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import SgdLearner, Trained
from featherfed.wire.messages import Task

F32 = npt.NDArray[np.float32]
Worth = Callable[[int, int], bool]
"""Whether so many phones of so many steps, of the one with the fewest, are to be one batch."""
MANY_PHONES, MANY_STEPS = 10, 60


def worth_a_batch(phones: int, steps: int) -> bool:
    """Whether a GPU has phones trained sooner as one batch than in turns, by what was measured (docs/PERFORMANCE.md).

    Ten phones or more are, by any steps; two or more, where they make so many that most of them are replayed.
    """
    return phones >= MANY_PHONES or (phones > 1 and steps >= MANY_STEPS)


def train_together(asked: Sequence[tuple[SgdLearner, F32, Task, F32 | None]], worth: Worth) -> list[Trained | None]:
    """Return what `SgdLearner.train` would for each, to rounding; None for those that must be trained by themselves.

    The learners are of one problem and share its module. By themselves train those with a learner of their own or in
    a part of the weights, those of whom no batch is `worth` it, and all where something cannot be computed for many at
    once, or fails: whatever is wrong is raised there as it is without a batch.
    """
    from featherfed.learning.together import train_as_one

    alike: dict[str, list[int]] = {}
    for number, (learner, _, task, _) in enumerate(asked):
        if (training := learner.plain_training(task)) is not None:
            alike.setdefault(repr(training), []).append(number)
    results: list[Trained | None] = [None] * len(asked)
    for numbers in alike.values():
        learners, weights, tasks, _ = zip(*(asked[number] for number in numbers), strict=True)
        training = learners[0].plain_training(tasks[0])
        assert training is not None, "it was looked at"
        examples = min(learner.examples for learner in learners)
        steps = training.epochs * -(-examples // (training.batch_size or examples))
        if len(numbers) < 2 or not worth(len(numbers), steps):
            continue
        keys = [learner.key(task) for learner, task in zip(learners, tasks, strict=True)]
        try:
            updates = train_as_one([learner.trainer for learner in learners], weights, training, keys)
        except (Exception, SystemExit):
            continue
        for number, update in zip(numbers, updates, strict=True):
            learner, _, task, residual = asked[number]
            results[number] = None if update is None else learner.encoded(update, task, residual)
    return results
