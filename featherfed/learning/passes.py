"""How a gradient is had: by passes that are written out, where a model and its loss are theirs, else by autograd.

All write it to the flat gradient, and all can step by it; what trains (`training.py`) does not know which it has. The
tests hold the one against the other.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from featherfed import problem as problems
from featherfed.learning.backprop import Backprop, fits
from featherfed.learning.channels_last import channels_last, rows_of
from featherfed.learning.fast import compiled_passes
from featherfed.learning.flat import FlatModel
from featherfed.learning.in_place import InPlace
from featherfed.problem import Examples, Problem

Parts = tuple[torch.Tensor, ...]
Loss = Callable[..., torch.Tensor]
"""Of a module's outputs and a batch's targets."""


class Passes(Protocol):
    """Forward and backward through one model.

    `parts` are a phone's inputs and `targets` its targets, as `prepare` made them; `chosen` are the numbers of those of
    a batch, int64.
    """

    recorded: bool
    """Whether autograd records: then no tensor may be one of inference mode."""
    loss: Loss
    """What is differentiated, of targets as `prepare` makes them."""
    at_once: int
    """How many examples one call of `descend` should take, in whole batches: a call costs as much as a short step."""

    def prepare(self, examples: Examples) -> tuple[Parts, torch.Tensor]:
        """Return a phone's inputs and targets as the passes take them."""

    def rows(self, parts: Parts, chosen: torch.Tensor) -> Parts:
        """Return some of the prepared inputs, copied, in the memory format that all of them have."""

    def gradient(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Write the gradient of a batch's loss to the model's `gradient`; return the loss, a scalar."""

    def begin(self) -> None:
        """Take the model's weights as they are now, to `descend` from; nobody else writes to them until the `end`."""

    def end(self) -> None:
        """Have the model's weights be what was descended to."""

    def descend(
        self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int, rate: float
    ) -> torch.Tensor:
        """Step by -rate times the gradient of each `batch` of the chosen ones in turn; return the losses, (steps,)."""


def is_cross_entropy(problem: Problem) -> bool:
    """Whether a problem's loss is the one that the written passes differentiate."""
    return problem.loss is problems.cross_entropy or problem.loss is cross_entropy


def passes_for(problem: Problem, model: FlatModel, examples: Examples) -> Passes:
    """Return the fastest passes that give the gradient of this problem's loss."""
    if is_cross_entropy(problem) and isinstance(examples.inputs, torch.Tensor) and fits(model.module, examples.inputs):
        classes = next(
            each.out_features for each in reversed(list(model.module.children())) if isinstance(each, nn.Linear)
        )
        targets = examples.targets
        whole = targets.dim() == 1 and targets.dtype == torch.int64 and len(targets)
        if whole and int(targets.min()) >= 0 and int(targets.max()) < classes:
            return compiled_passes(model, tuple(examples.inputs.shape[1:])) or Written(model, classes)
    return Autograd(problem, model)


class Written(InPlace):
    """The passes of `backprop.py`: no graph is recorded."""

    recorded = False

    def __init__(self, model: FlatModel, classes: int) -> None:
        self._backprop, self._classes = Backprop(model), classes
        self.loss: Loss = cross_entropy
        self._device = model.weights.device

    def prepare(self, examples: Examples) -> tuple[Parts, torch.Tensor]:
        """Return images with their channels last in memory, and one-hot targets."""
        (inputs,) = examples.parts
        inputs = channels_last(inputs.to(self._device))
        return (inputs,), one_hot(examples.targets, self._classes).to(self._device, torch.float32)

    def rows(self, parts: Parts, chosen: torch.Tensor) -> Parts:
        """Return images with their channels last."""
        return (rows_of(parts[0], chosen),)

    def gradient(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Write the gradient."""
        (inputs,) = self.rows(parts, chosen)
        return self._backprop.gradient(inputs, targets.index_select(0, chosen))

    def descend(
        self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int, rate: float
    ) -> torch.Tensor:
        """Step by gradients that are never in memory as a whole."""
        losses = []
        for some in torch.split(chosen, batch):
            (inputs,) = self.rows(parts, some)
            losses.append(self._backprop.descend(inputs, targets.index_select(0, some), rate))
        return torch.stack(losses)


class Autograd(InPlace):
    """torch's own, of any module and any loss that it can differentiate."""

    recorded = True

    def __init__(self, problem: Problem, model: FlatModel) -> None:
        self.loss: Loss = problem.loss
        self._model = model

    def prepare(self, examples: Examples) -> tuple[Parts, torch.Tensor]:
        """Return the tensors on the model's device."""
        device = self._model.weights.device
        return tuple(part.to(device) for part in examples.parts), examples.targets.to(device)

    def rows(self, parts: Parts, chosen: torch.Tensor) -> Parts:
        """Return the rows."""
        return tuple(part.index_select(0, chosen) for part in parts)

    def gradient(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Write the gradient; parameters that the loss does not depend on have none."""
        inputs, wanted = self.rows(parts, chosen), targets.index_select(0, chosen)
        # In place: the parameters' gradients are views of this.
        self._model.gradient.zero_()
        with torch.enable_grad():
            loss = self.loss(self._model.module(*inputs), wanted)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def descend(
        self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int, rate: float
    ) -> torch.Tensor:
        """Step by the gradient."""
        losses = []
        for some in torch.split(chosen, batch):
            losses.append(self.gradient(parts, targets, some))
            self._model.weights.sub_(self._model.gradient, alpha=rate)
        return torch.stack(losses)
