"""Training by a problem's own `learner`: a function from flat weights to flat weights, in place of our SGD."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from featherfed.codec.space import Space
from featherfed.errors import ConfigError, DivergedError, ProblemError
from featherfed.learning.flat import FlatModel
from featherfed.learning.training import LocalUpdate, Trainer
from featherfed.problem import Examples, Problem
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from featherfed.user_code import blaming, place_of

F32 = npt.NDArray[np.float32]


class OwnTrainer:
    """A phone's examples, and the problem's learner."""

    def __init__(self, problem: Problem, examples: Examples) -> None:
        assert problem.learner is not None, "a problem without a learner is trained by SGD"
        self._problem, self._learner, self._examples = problem, problem.learner, examples

    @property
    def examples(self) -> int:
        """How many examples this phone trains on: its weight in the mean."""
        return len(self._examples)

    def train(
        self,
        weights: F32,
        training: Training,
        key: RoundKey,
        space: Space,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> LocalUpdate | None:
        """Return what the learner changed of `weights`, (parameters,) float32; it is not stopped on its way.

        `training.set` has all of the problem's settings; the generator is seeded by the round and the phone. The
        update's loss is NaN, since nobody says it. Raises `ProblemError` for what cannot be new weights.
        """
        if stopped():
            return None
        check_space(self._problem, space)
        whole = Training(**{name: getattr(training, name) for name in Training.__slots__} | {
            "set": self._problem.settings_with(training.set)
        })  # fmt: skip
        given = weights.copy()
        with blaming(f"training fails in round {key.round_number}"):
            new = np.asarray(self._learner(given, self._examples, whole, key.generator("learner")), np.float32)
            if new.shape != weights.shape:
                raise ProblemError(
                    f"learner{place_of(self._learner)} returns weights of shape {new.shape} for {weights.shape}"
                )
        if not np.isfinite(new).all():
            raise DivergedError(key.round_number, 1, training.lr, float("nan"))
        return LocalUpdate(new - weights, 1, self.examples, float("nan"))


def check_space(problem: Problem, space: Space) -> None:
    """Raise `ConfigError` for an uplink that a learner of flat weights cannot train in."""
    if not space.identity:
        raise ConfigError(
            f"problem {problem.name} has a learner of its own, which changes all weights, and --uplink trains a"
            " subspace of them; choose an uplink without mask, lowrank and subspace"
        )


def trainer_for(problem: Problem, examples: Examples, device: str, model: FlatModel) -> Trainer | OwnTrainer:
    """Return what trains a problem on a phone's examples; `model` may be shared by trainers that take turns."""
    if problem.learner is not None:
        return OwnTrainer(problem, examples)
    return Trainer(problem, examples, device, model=model)
