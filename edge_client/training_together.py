"""Trainings of several phones of one process as one batch, where they are alike enough; all others are left undone."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import SgdLearner, Trained
from featherfed.wire.messages import Task

if TYPE_CHECKING:
    from featherfed.training_settings import Training

F32 = npt.NDArray[np.float32]
Worth = Callable[[int, int], bool]
"""Whether so many phones of so many steps, of the one with the fewest, are to be one batch."""
MANY_PHONES, MANY_STEPS = 10, 60


def worth_a_batch(phones: int, steps: int) -> bool:
    """Whether a GPU has phones trained sooner as one batch than in turns, by what was measured (docs/PERFORMANCE.md).

    Ten phones or more are, by any steps; two or more, where they make so many that most of them are replayed.
    """
    return phones >= MANY_PHONES or (phones > 1 and steps >= MANY_STEPS)


def train_together(
    asked: Sequence[tuple[SgdLearner, F32, Task, F32 | None]], worth: Worth
) -> dict[int, Trained | None]:
    """Return what `SgdLearner.train` would for those who were a batch, to rounding, by their numbers among the `asked`.

    The learners are of one problem and share its module. None is for one that must be trained by itself: where
    something cannot be computed for many at once, or fails, so that whatever is wrong is raised there as it is without
    a batch. Who is not in the result was not tried: those with a learner of their own or in a part of the weights, and
    those of whom no batch is `worth` it.
    """
    from featherfed.learning.together import train_as_one

    alike: dict[str, list[int]] = {}
    trainings: list[Training | None] = [_plain_training(learner, task) for learner, _, task, _ in asked]
    for number, training in enumerate(trainings):
        if training is not None:
            alike.setdefault(repr(training), []).append(number)
    results: dict[int, Trained | None] = {}
    for numbers in alike.values():
        learners, weights, tasks, residuals = zip(*(asked[number] for number in numbers), strict=True)
        training = trainings[numbers[0]]
        assert training is not None, "it was looked at"
        examples = min(learner.examples for learner in learners)
        steps = training.epochs * -(-examples // (training.batch_size or examples))
        if len(numbers) < 2 or not worth(len(numbers), steps):
            continue
        results |= dict.fromkeys(numbers)
        keys = [learner.key(task) for learner, task in zip(learners, tasks, strict=True)]
        try:
            updates = train_as_one([learner.trainer for learner in learners], weights, training, keys)
        except (Exception, SystemExit):
            continue
        for number, update, residual in zip(numbers, updates, residuals, strict=True):
            learner, _, task, _ = asked[number]
            with contextlib.suppress(Exception, SystemExit):
                results[number] = None if update is None else learner.encoded(update, task, residual)
    return results


def _plain_training(learner: SgdLearner, task: Task) -> "Training | None":
    """Return how a task is trained for, if it can be in a batch: what is wrong with it is raised where it is alone."""
    with contextlib.suppress(Exception, SystemExit):
        return learner.plain_training(task)
    return None
