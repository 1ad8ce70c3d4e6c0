"""Trainings and evaluations for phones that are emulated elsewhere: in a worker process, or on a node of a cluster.

What comes back is a function of what was sent, so it is the same whoever made it: the phones, the server and their
order stay with the emulator.
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import SgdLearner, Trained
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.problem import Place
from featherfed.user_modules import import_plugins
from featherfed.wire.messages import Task, Welcome

if TYPE_CHECKING:
    from featherfed.learning.evaluation import Evaluator

F32 = npt.NDArray[np.float32]
KEPT_LEARNERS = 256
"""Phones whose examples a host keeps; others are loaded again when they are asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What a host needs to know of a run: `problem` is the name by which it loads it.

    `path` is where the emulator finds modules, `folder` where it runs, `plugins` what registers codec stages, `passes`
    what the run trains by (`featherfed/learning/fast.py`).
    """

    problem: str
    plugins: tuple[str, ...]
    data_dir: str | None
    path: tuple[str, ...] = ()
    folder: str | None = None
    passes: str = "torch"

    @classmethod
    def here(cls, problem: str, *, plugins: Sequence[str] = (), data_dir: str | None = None) -> "HostPlan":
        """Return the plan of a run in this process, in its folder and with its path."""
        from featherfed.learning.fast import passes

        return cls(
            problem=problem, plugins=tuple(plugins), data_dir=data_dir, path=tuple(sys.path), folder=os.getcwd(),
            passes=passes(),
        )  # fmt: skip


class TrainingHost:
    """Trains any phone of one run, one at a time, and evaluates parts of its test set."""

    def __init__(self, plan: HostPlan) -> None:
        """Load the problem; raises what loading it raises, and `ConfigError` where the run's passes are not here."""
        import torch

        from featherfed.learning.fast import agree

        torch.set_num_threads(1)
        agree(plan.passes)
        if plan.folder is not None and os.path.isdir(plan.folder):
            os.chdir(plan.folder)
        sys.path[:] = [*plan.path, *(entry for entry in sys.path if entry not in plan.path)]
        import_plugins(plan.plugins)
        self._plan = plan
        self._local = LocalProblem(plan.problem, "cpu")
        self._learners: OrderedDict[int, tuple[Welcome, SgdLearner]] = OrderedDict()
        self._evaluator: tuple[Place, Evaluator] | None = None

    def train(self, welcome: Welcome, weights: F32, task: Task, residual: F32 | None) -> Trained | None:
        """Return the update of the phone that was welcomed so; raises what its training raises."""
        return self._learner(welcome).train(weights, task, residual, lambda: False)

    def evaluate(self, place: Place, weights: F32, first: int, end: int) -> list[tuple[float, ...]]:
        """Return what `Evaluator.part` says of some batches of the test set."""
        from featherfed.learning.evaluation import evaluator_for
        from featherfed.learning.models import build

        if self._evaluator is None or self._evaluator[0] != place:
            problem = self._local.problem
            made = evaluator_for(problem, place, build(problem, 0))
            assert made is not None, "the server has a test set"
            self._evaluator = place, made
        return self._evaluator[1].part(weights, first, end)

    def _learner(self, welcome: Welcome) -> SgdLearner:
        known = self._learners.pop(welcome.shard, None)
        if known is None or known[0] != welcome:
            # The emulator has tried a step on these examples already.
            known = welcome, self._local.learner(welcome, self._plan.data_dir, tried=True)
        self._learners[welcome.shard] = known
        if len(self._learners) > KEPT_LEARNERS:
            self._learners.popitem(last=False)
        return known[1]
