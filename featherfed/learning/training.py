"""One phone's local training: minibatch SGD on flat vectors.

With weights w, gradient g of the batch's mean loss, learning rate η, momentum β, weight decay λ and FedProx's μ
(Li et al. 2020) around the weights w₀ that the phone was given:

    g ← g + λw + μ(w − w₀),    m ← βm + g,    w ← w − ηm

A structured update (Konečný et al. 2016, section 2) trains coordinates c of a subspace: w = w₀ + expand(c), and c steps
by the gradient pulled back into it: the restriction is part of the training, and not a projection after it.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from featherfed.codec.space import Space
from featherfed.errors import DivergedError, ProblemError
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, training_mode
from featherfed.learning.passes import Loss, Parts, Passes, passes_for
from featherfed.learning.precision import whole_float32
from featherfed.problem import Examples, Problem
from featherfed.randomness import RoundKey, derive
from featherfed.training_settings import Training
from featherfed.user_code import blaming

if TYPE_CHECKING:
    from featherfed.problem import Change

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """`coordinates`: (space.size,) float32, what to add; `loss`: mean over the last epoch's batches, in nats."""

    coordinates: F32
    steps: int
    examples: int
    loss: float


Epoch = tuple[Parts, bool, torch.Tensor]
"""An epoch's inputs, whether they are in its order already, and the order of the examples."""


def seed_torch(key: RoundKey) -> None:
    """Seed torch's own generators for one phone's training."""
    torch.manual_seed(derive(key.seed, key.round_number, key.client, "torch") >> 65)


class Trainer:
    """One phone's model and examples, ready to train."""

    def __init__(
        self, problem: Problem, examples: Examples, device: str = "cpu", *, model: FlatModel | None = None
    ) -> None:
        """`model` may be shared by trainers that take turns: every training begins by loading its weights."""
        self._problem = problem
        self._model = model or FlatModel(build(problem, 0), device)
        self._passes = passes_for(problem, self._model, examples)
        self._parts, self.targets = self._passes.prepare(examples)
        self.device = device

    @property
    def examples(self) -> int:
        """How many examples this phone trains on: its weight in the mean."""
        return len(self.targets)

    @property
    def augments(self) -> bool:
        """Whether the problem changes the inputs before each epoch, or each few."""
        return self._problem.augment is not None

    @property
    def module(self) -> nn.Module:
        """What is trained, with the weights of whoever trained last."""
        return self._model.module

    @property
    def loss(self) -> Loss:
        """The loss of the module's outputs and a batch of `targets`."""
        return self._passes.loss

    def train(
        self,
        weights: F32,
        training: Training,
        key: RoundKey,
        space: Space,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> LocalUpdate | None:
        """Return the update that local training from `weights`, (parameters,) float32, gives.

        The order of the examples and all that is random come from `key`: the same key, weights and settings give the
        same bits on one kind of machine. None is returned where `stopped()` says so, which is asked before every step,
        or before every few short ones.

        Raises `ProblemError` for a fault in the problem's code, `DivergedError` where the loss is no number.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(blaming(f"training fails in round {key.round_number}"))
            stack.enter_context(whole_float32(self.device))
            if self._passes.recorded:
                # What a module draws itself, as dropout does, comes from torch's own generator.
                stack.enter_context(torch.no_grad())
                stack.enter_context(torch.random.fork_rng(devices=[] if self.device == "cpu" else None))
                seed_torch(key)
                training_mode(self._model.module)
            else:
                stack.enter_context(torch.inference_mode())
            return self._train(weights, training, key, space, stopped)

    def _train(
        self, weights: F32, training: Training, key: RoundKey, space: Space, stopped: Callable[[], bool]
    ) -> LocalUpdate | None:
        start = torch.from_numpy(weights).to(self.device)
        self._model.weights.copy_(start)
        stepper = _stepper(self._model, self._passes, start, training, space)
        batch = training.batch_size or self.examples
        steps = 0
        losses: list[torch.Tensor] = []
        for inputs, in_order, order in self.epochs(training, key):
            targets, chosen_of = self.targets, order
            if in_order:
                targets, chosen_of = targets.index_select(0, order), torch.arange(self.examples, device=self.device)
            losses.clear()
            for chosen in torch.split(chosen_of, batch * max(1, stepper.at_once // batch)):
                if stopped():
                    return None
                losses.append(stepper.step(inputs, targets, chosen, batch))
                steps += len(losses[-1])
        loss = float(torch.cat(losses).mean())
        update = stepper.update()
        if not (math.isfinite(loss) and np.isfinite(update).all()):
            raise DivergedError(key.round_number, steps, training.lr, loss)
        return LocalUpdate(update, steps, self.examples, loss)

    def epochs(self, training: Training, key: RoundKey) -> Iterator[Epoch]:
        """Give each epoch's inputs, whether they are in its order already, and the order of the examples."""
        order_of, moves_of = key.generator("shuffle"), key.generator("shift")
        augment = self._problem.augment and self._problem.augment(self._problem.settings_with(training.set))
        lasts = getattr(augment, "epochs", 0)
        lasting: Parts = ()
        for epoch in range(training.epochs):
            order = torch.from_numpy(order_of.permutation(self.examples)).to(self.device)
            if not augment:
                yield self._parts, False, order
            elif not lasts:
                yield self._moved(augment, self._passes.rows(self._parts, order), moves_of), True, order
            else:
                if epoch % lasts == 0:
                    lasting = self._moved(augment, self._parts, moves_of)
                yield self._passes.rows(lasting, order), True, order

    def _moved(self, augment: "Change", parts: Parts, generator: np.random.Generator) -> Parts:
        """Return the inputs as the problem changes them for an epoch, or for several."""
        changed = augment(parts if len(parts) > 1 else parts[0], generator)
        moved = changed if isinstance(changed, tuple) else (changed,)
        shapes, wanted = [tuple(part.shape) for part in moved], [tuple(part.shape) for part in self._parts]
        if shapes != wanted:
            raise ProblemError(f"augment returns inputs of shape {shapes}, and was given {wanted}")
        return moved


class _Stepper(Protocol):
    at_once: int
    """How many examples `step` should be given, in whole batches."""

    def step(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int) -> torch.Tensor:
        """Train on one batch, or one after the other; return their losses, (steps,)."""

    def update(self) -> F32:
        """Return the coordinates of what was trained."""


def _stepper(model: FlatModel, passes: Passes, start: torch.Tensor, settings: Training, space: Space) -> _Stepper:
    if not space.identity:
        if space.entries is not None:
            return _Entries(model, passes, start, settings, space.entries)
        return _Subspace(model, passes, start, settings, space)
    if settings.momentum or settings.weight_decay or settings.prox_mu:
        return _Flat(model, passes, start, settings)
    return _Plain(model, passes, start, settings)


class _Plain:
    """Steps on all weights by the gradient alone, which is never in memory as a whole."""

    def __init__(self, model: FlatModel, passes: Passes, start: torch.Tensor, settings: Training) -> None:
        self._model, self._passes, self._start, self._settings = model, passes, start, settings
        self.at_once = passes.at_once
        passes.begin()

    def step(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int) -> torch.Tensor:
        return self._passes.descend(parts, targets, chosen, batch, self._settings.lr)

    def update(self) -> F32:
        self._passes.end()
        difference: F32 = (self._model.weights - self._start).cpu().numpy()
        return difference


def add_pulls(gradient: torch.Tensor, weights: torch.Tensor, start: torch.Tensor, settings: Training) -> None:
    """Add to a gradient what weight decay and the proximal term pull the weights by; all tensors have one shape."""
    pull = settings.weight_decay + settings.prox_mu
    if pull:
        gradient.add_(weights, alpha=pull)
    if settings.prox_mu:
        gradient.sub_(start, alpha=settings.prox_mu)


class _OneByOne:
    """Steps by a gradient that is in memory."""

    at_once = 1

    def step(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor, batch: int) -> torch.Tensor:
        return torch.stack([self._one(parts, targets, some) for some in torch.split(chosen, batch)])

    def _one(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class _Flat(_OneByOne):
    """Steps on all weights with momentum, weight decay or a proximal term."""

    def __init__(self, model: FlatModel, passes: Passes, start: torch.Tensor, settings: Training) -> None:
        self._model, self._passes, self._start, self._settings = model, passes, start, settings
        self._momentum = torch.zeros_like(start) if settings.momentum else None

    def _one(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        weights, gradient, settings = self._model.weights, self._model.gradient, self._settings
        loss = self._passes.gradient(parts, targets, chosen)
        add_pulls(gradient, weights, self._start, settings)
        if self._momentum is not None:
            gradient = self._momentum.mul_(settings.momentum).add_(gradient)
        weights.sub_(gradient, alpha=settings.lr)
        return loss

    def update(self) -> F32:
        difference: F32 = (self._model.weights - self._start).cpu().numpy()
        return difference


class _Entries(_OneByOne):
    """Steps on some entries of the weights; the others are never touched."""

    def __init__(
        self,
        model: FlatModel,
        passes: Passes,
        start: torch.Tensor,
        settings: Training,
        entries: npt.NDArray[np.int64],
    ) -> None:
        self._model, self._passes, self._settings = model, passes, settings
        self._entries = torch.from_numpy(entries).to(start.device)
        self._start = start.index_select(0, self._entries)
        self._coordinates = torch.zeros_like(self._start)
        self._momentum = torch.zeros_like(self._start) if settings.momentum else None

    def _one(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        settings, coordinates = self._settings, self._coordinates
        loss = self._passes.gradient(parts, targets, chosen)
        gradient = self._model.gradient.index_select(0, self._entries)
        if settings.weight_decay:
            gradient.add_(self._start + coordinates, alpha=settings.weight_decay)
        if settings.prox_mu:
            gradient.add_(coordinates, alpha=settings.prox_mu)
        if self._momentum is not None:
            gradient = self._momentum.mul_(settings.momentum).add_(gradient)
        coordinates.sub_(gradient, alpha=settings.lr)
        self._model.weights.index_copy_(0, self._entries, self._start + coordinates)
        return loss

    def update(self) -> F32:
        coordinates: F32 = self._coordinates.cpu().numpy()
        return coordinates


class _Subspace(_OneByOne):
    """Steps on the coordinates of a space."""

    def __init__(
        self,
        model: FlatModel,
        passes: Passes,
        start: torch.Tensor,
        settings: Training,
        space: Space,
    ) -> None:
        self._model, self._passes, self._start = model, passes, start
        self._settings, self._space = settings, space
        self._coordinates = np.zeros(space.size, np.float32)
        self._momentum = np.zeros(space.size, np.float32)

    def _one(self, parts: Parts, targets: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        weights, gradient, settings = self._model.weights, self._model.gradient, self._settings
        loss = self._passes.gradient(parts, targets, chosen)
        if settings.weight_decay:
            gradient.add_(weights, alpha=settings.weight_decay)
        if settings.prox_mu:
            gradient.add_(weights - self._start, alpha=settings.prox_mu)
        pulled = self._space.pull_back(gradient.cpu().numpy())
        self._momentum *= np.float32(settings.momentum)
        self._momentum += pulled
        self._coordinates -= np.float32(settings.lr) * self._momentum
        moved = torch.from_numpy(self._space.expand(self._coordinates)).to(weights.device)
        torch.add(self._start, moved, out=weights)
        return loss

    def update(self) -> F32:
        return self._coordinates
