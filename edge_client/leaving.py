"""Phones that leave: asked to train, some go away instead, and come back later.

Cross-device rounds lose 6–10 % of their phones (Bonawitz et al. 2019, section 9). Who leaves in which round, and for
how long, is drawn from (seed, round, shard), so it is the same on real sockets and in virtual time.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import Learner, Trained
from featherfed.errors import LocalError
from featherfed.randomness import RoundKey
from featherfed.wire.messages import NOTHING, Task, Welcome


class PhoneLeftError(LocalError):
    """The phone goes away for `away_s` seconds."""

    def __init__(self, away_s: float) -> None:
        self.away_s = away_s

    def __str__(self) -> str:
        return f"away for {self.away_s:.1f} s"


class LeavingLearner:
    """A learner whose phone leaves with probability `dropout` in each round in which it is asked."""

    def __init__(self, learner: Learner, welcome: Welcome, *, dropout: float, away_s: float) -> None:
        """`away_s`: mean of the exponential time until the phone is back."""
        self._learner, self._welcome = learner, welcome
        self._dropout, self._away_s = dropout, away_s
        self._left_in = NOTHING
        self.examples = learner.examples

    def train(
        self, weights: npt.NDArray[np.float32], task: Task, residual: npt.NDArray[np.float32] | None,
        stopped: Callable[[], bool],
    ) -> Trained | None:  # fmt: skip
        """Return the update for a task; raises `PhoneLeftError` in place of it, once a round at most."""
        return self.stays(task).train(weights, task, residual, stopped)

    def stays(self, task: Task) -> Learner:
        """Return who trains for a task, or raise `PhoneLeftError`."""
        generator = RoundKey(self._welcome.seed, task.round, self._welcome.shard).generator("dropout")
        if self._left_in != task.round and generator.random() < self._dropout:
            self._left_in = task.round
            raise PhoneLeftError(generator.exponential(self._away_s))
        return self._learner
