"""Loss and metrics of a model on test examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from featherfed.errors import ProblemError
from featherfed.learning.backprop import fits
from featherfed.learning.dry_step import dry_step
from featherfed.learning.flat import FlatModel
from featherfed.problem import Examples, Place, Problem
from featherfed.user_code import blaming, place_of

BATCH = 100
"""Examples at a time. With 250 `cnn` takes as long, and three times the 15 MB for its activations."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The mean loss over `examples` test examples (cross-entropy in nats), and the problem's metrics by name."""

    loss: float
    metrics: Mapping[str, float]
    examples: int


def evaluator_for(problem: Problem, place: Place, module: nn.Module) -> "Evaluator | None":
    """Return what evaluates on the problem's test set, tried by one step; None where there is no test set."""
    with blaming(f"problem {problem.name}: test() fails", problem.test):
        examples = problem.test_examples(place)
        if examples is not None and not isinstance(examples, Examples):
            raise ProblemError(f"it returns a {type(examples).__name__}, and no ff.Examples")
        if examples is not None and len(examples) == 0:
            raise ProblemError("there is no example in it; leave test out for a run without evaluation")
    if examples is None:
        return None
    model = FlatModel(module)
    dry_step(problem, examples, model)
    few = Examples(tuple(part[:2] for part in examples.parts), examples.targets[:2])
    Evaluator(problem, few, model).try_metrics()
    return Evaluator(problem, examples, model)


class Evaluator:
    """Evaluates flat weights of one problem's model on one set of examples."""

    def __init__(self, problem: Problem, examples: Examples, model: FlatModel) -> None:
        """`model` is of `build(problem, 0)`: its frozen parameters are those of the phones."""
        self._problem, self._measures = problem, problem.measures
        self._model, device = model, model.weights.device
        # With the channels last torch's pooling and small convolutions take a third of the time; but a module of the
        # user's may rely on the usual strides.
        chain = isinstance(examples.inputs, torch.Tensor) and fits(self._model.module, examples.inputs)
        self._parts = tuple(part.to(device) for part in examples.parts)
        if chain and examples.parts[0].dim() == 4:
            self._parts = tuple(part.contiguous(memory_format=torch.channels_last) for part in self._parts)
        self._targets = examples.targets.to(device)

    def evaluate(self, weights: npt.NDArray[np.float32]) -> Evaluation:
        """Return loss and metrics of `weights`, (parameters,) float32; raises `ProblemError` where one fails."""
        self._model.weights.copy_(torch.from_numpy(weights))
        self._model.module.eval()
        loss, count = 0.0, len(self._targets)
        sums = dict.fromkeys((name for name, each in self._measures.items() if not each.whole), 0.0)
        kept: list[Any] = []
        with torch.inference_mode():
            for batch in zip(*(torch.split(each, BATCH) for each in (*self._parts, self._targets)), strict=True):
                *parts, targets = batch
                with blaming("the model fails on the test set"):
                    outputs = self._model.module(*parts)
                with blaming(f"the loss{place_of(self._problem.loss)} fails on the test set"):
                    loss += float(self._problem.loss(outputs, targets)) * len(targets)
                for name in sums:
                    sums[name] += self._total(name, outputs, targets)
                if len(sums) < len(self._measures):
                    kept.append(outputs)
            metrics = {name: total / count for name, total in sums.items()}
            if kept:
                outputs = torch.cat(kept)
                metrics |= {
                    name: self._total(name, outputs, self._targets) / count
                    for name in self._measures
                    if name not in sums
                }
        return Evaluation(loss / count, {name: metrics[name] for name in self._measures}, count)

    def try_metrics(self) -> None:
        """Measure these examples with the weights that there are; raises `ProblemError` for a metric that fails.

        One of the whole is left out: what it needs may be in no few examples.
        """
        self._model.module.eval()
        with torch.inference_mode():
            outputs = self._model.module(*self._parts)
            for name, measure in self._measures.items():
                if not measure.whole:
                    self._total(name, outputs, self._targets)

    def _total(self, name: str, outputs: Any, targets: torch.Tensor) -> float:
        """Return the sum over examples of what a metric says of them: one value for each, or their mean."""
        measure = self._measures[name]
        with blaming(f"metric {name}{place_of(measure.function)} fails"):
            value = measure(outputs, targets)
            if not isinstance(value, torch.Tensor) or not value.dim() or measure.whole:
                return float(value) * len(targets)
            if len(value) != len(targets):
                raise ProblemError(
                    f"it returns {len(value)} values for {len(targets)} examples; return one for each, or their mean"
                )
            return float(value.double().flatten(1).mean(1).sum() if value.dim() > 1 else value.double().sum())
