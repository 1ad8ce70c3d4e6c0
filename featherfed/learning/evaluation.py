"""Loss and metrics of a model on test examples."""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from featherfed.errors import ProblemError
from featherfed.learning.backprop import fits
from featherfed.learning.dry_step import dry_step
from featherfed.learning.fast import compiled_passes
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build
from featherfed.learning.precision import whole_float32
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


def evaluator_for(problem: Problem, place: Place, module: nn.Module, device: str = "cpu") -> "Evaluator | None":
    """Return what evaluates on the problem's test set, tried by one step; None where there is no test set.

    On another `device` than the CPU it has a module of its own.
    """
    with blaming(f"problem {problem.name}: test() fails", problem.test):
        examples = problem.test_examples(place)
        if examples is not None and not isinstance(examples, Examples):
            raise ProblemError(f"it returns a {type(examples).__name__}, and no ff.Examples")
        if examples is not None and len(examples) == 0:
            raise ProblemError("there is no example in it; leave test out for a run without evaluation")
    if examples is None:
        return None
    model = FlatModel(module if device == "cpu" else build(problem, 0), device)
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
        inputs = examples.parts[0]
        chain = isinstance(examples.inputs, torch.Tensor) and fits(self._model.module, inputs)
        self._parts = tuple(part.to(device) for part in examples.parts)
        if chain and inputs.dim() == 4:
            self._parts = tuple(part.contiguous(memory_format=torch.channels_last) for part in self._parts)
        self._compiled = compiled_passes(self._model, tuple(inputs.shape[1:])) if chain else None
        self._targets = examples.targets.to(device)
        self._summed = tuple(name for name, measure in self._measures.items() if not measure.whole)
        # Whose code it is takes longer to find out than a batch's loss.
        self._loss_fails = f"the loss{place_of(problem.loss)} fails on the test set"
        self._fails = {
            name: f"metric {name}{place_of(measure.function)} fails" for name, measure in self._measures.items()
        }

    @property
    def batches(self) -> int:
        """How many batches the test set is evaluated in."""
        return -(-len(self._targets) // BATCH)

    @property
    def divisible(self) -> bool:
        """Whether what batches say adds up, as it does without a metric of the whole test set."""
        return not any(measure.whole for measure in self._measures.values())

    def evaluate(self, weights: npt.NDArray[np.float32]) -> Evaluation:
        """Return loss and metrics of `weights`, (parameters,) float32; raises `ProblemError` where one fails."""
        kept: list[Any] = []
        rows = self.part(weights, 0, self.batches, None if self.divisible else kept)
        return self.total(rows, torch.cat(kept) if kept else None)

    def part(
        self, weights: npt.NDArray[np.float32], first: int, end: int, kept: list[Any] | None = None
    ) -> list[tuple[float, ...]]:
        """Return, for the batches from `first` to before `end`, the sums over examples of the loss and each metric.

        `kept` gets the outputs, for the metrics of the whole.
        """
        self._model.weights.copy_(torch.from_numpy(weights))
        self._model.module.eval()
        if self._compiled is not None:
            self._compiled.begin()
        rows = []
        examples = slice(first * BATCH, end * BATCH)
        with torch.inference_mode(), whole_float32(self._model.weights.device.type):
            for batch in zip(
                *(torch.split(each[examples], BATCH) for each in (*self._parts, self._targets)), strict=True
            ):
                *parts, targets = batch
                with blaming("the model fails on the test set"):
                    outputs = self._model.module(*parts) if self._compiled is None else self._compiled.outputs(*parts)
                with blaming(self._loss_fails):
                    loss = float(self._problem.loss(outputs, targets)) * len(targets)
                rows.append((loss, *(self._total(name, outputs, targets) for name in self._summed)))
                if kept is not None:
                    kept.append(outputs)
        return rows

    def total(self, rows: Sequence[tuple[float, ...]], outputs: Any = None) -> Evaluation:
        """Return what the rows of all batches, in their order, add up to; `outputs` of all, for metrics of the whole.

        One after the other (Python's `sum` rounds otherwise since 3.12), so to the same bit, whoever made the rows.
        """
        count = len(self._targets)
        loss, *sums = (functools.reduce(operator.add, column, 0.0) for column in zip(*rows, strict=True))
        metrics = {name: total / count for name, total in zip(self._summed, sums, strict=True)}
        if outputs is not None:
            with torch.inference_mode():
                metrics |= {
                    name: self._total(name, outputs, self._targets) / count
                    for name in self._measures
                    if name not in metrics
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
        with blaming(self._fails[name]):
            value = measure(_on_host(outputs), _on_host(targets))
            if not isinstance(value, torch.Tensor) or not value.dim() or measure.whole:
                return float(value) * len(targets)
            if len(value) != len(targets):
                raise ProblemError(
                    f"it returns {len(value)} values for {len(targets)} examples; return one for each, or their mean"
                )
            return float(value.double().flatten(1).mean(1).sum() if value.dim() > 1 else value.double().sum())


def _on_host(values: Any) -> Any:
    """Return outputs where a metric of the user's may look at them: numpy and scikit-learn read no GPU's memory."""
    if isinstance(values, torch.Tensor):
        return values.cpu()
    return type(values)(map(_on_host, values)) if type(values) in (tuple, list) else values
