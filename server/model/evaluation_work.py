"""Who evaluates a version: a thread beside the event loop, unless a simulation has its workers do it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.problem import Place

if TYPE_CHECKING:
    from featherfed.learning.evaluation import Evaluation, Evaluator


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An evaluation that has begun; `done` is what `Evaluator.evaluate` returns or raises."""

    done: "asyncio.Future[Evaluation]"
    wanted: Callable[[], None] = _nothing
    """Says that nothing goes on before it is done: until then it may be what others leave free that it gets."""


Evaluates = Callable[["Evaluator", Place, npt.NDArray[np.float32]], UnderWay]
"""Begins to evaluate weights, (parameters,) float32, with an evaluator of the test set at a place; returns at once.

The weights are changed by nobody until it is done.
"""


def in_a_thread(evaluator: "Evaluator", place: Place, weights: npt.NDArray[np.float32]) -> UnderWay:
    """Evaluate in a thread of the event loop's."""
    return UnderWay(asyncio.get_running_loop().run_in_executor(None, evaluator.evaluate, weights))
