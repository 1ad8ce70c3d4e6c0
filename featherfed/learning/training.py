"""One phone's local training: minibatch SGD on flat vectors.

With weights w, gradient g of the batch's mean loss, learning rate η, momentum β, weight decay λ and FedProx's μ
(Li et al. 2020) around the weights w₀ that the phone was given:

    g ← g + λw + μ(w − w₀),    m ← βm + g,    w ← w − ηm

A structured update (Konečný et al. 2016, section 2) trains coordinates c of a subspace: w = w₀ + expand(c), and c steps
by the gradient pulled back into it: the restriction is part of the training, and not a projection after it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from featherfed.codec.space import Space
from featherfed.learning.data import Examples
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build
from featherfed.randomness import RoundKey

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What a round asks of a phone; `batch_size` 0 is the whole shard (FedSGD with one epoch)."""

    epochs: int = 1
    batch_size: int = 10
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    prox_mu: float = 0.0


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """`coordinates`: (space.size,) float32, what to add; `loss`: mean over the last epoch's batches, in nats."""

    coordinates: F32
    steps: int
    examples: int
    loss: float


class Trainer:
    """One phone's model and examples, ready to train."""

    def __init__(self, model_name: str, examples: Examples, device: str = "cpu") -> None:
        self._model = FlatModel(build(model_name, 0), device)
        self._images, self._labels = examples.images.to(device), examples.labels.to(device)
        self._device = device

    @property
    def examples(self) -> int:
        """How many examples this phone trains on: its weight in the mean."""
        return len(self._labels)

    def train(
        self,
        weights: F32,
        settings: TrainingSettings,
        key: RoundKey,
        space: Space,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> LocalUpdate | None:
        """Return the update that local training from `weights`, (parameters,) float32, gives.

        The order of the examples comes from `key`: the same key, weights and settings give the same bits on one kind
        of machine. None is returned where `stopped()`, asked before every step, says so.
        """
        start = torch.from_numpy(weights).to(self._device)
        self._model.weights.copy_(start)
        stepper: _Flat | _Subspace = _Flat(self._model, start, settings)
        if not space.identity:
            stepper = _Subspace(self._model, start, settings, space)
        generator = key.generator("shuffle")
        count = self.examples
        batch = settings.batch_size or count
        steps, loss = 0, torch.zeros(())
        for _ in range(settings.epochs):
            order = torch.from_numpy(generator.permutation(count)).to(self._device)
            losses = []
            for chosen in torch.split(order, batch):
                if stopped():
                    return None
                loss = cross_entropy(self._model.module(self._images[chosen]), self._labels[chosen])
                self._model.gradient.zero_()
                torch.autograd.backward(loss)
                with torch.no_grad():
                    stepper.step()
                losses.append(loss.detach())
                steps += 1
            loss = torch.stack(losses).mean()
        return LocalUpdate(stepper.update(), steps, count, float(loss))


class _Flat:
    """Steps on all weights."""

    def __init__(self, model: FlatModel, start: torch.Tensor, settings: TrainingSettings) -> None:
        self._model, self._start, self._settings = model, start, settings
        self._momentum = torch.zeros_like(start) if settings.momentum else None

    def step(self) -> None:
        weights, gradient, settings = self._model.weights, self._model.gradient, self._settings
        if settings.weight_decay:
            gradient.add_(weights, alpha=settings.weight_decay)
        if settings.prox_mu:
            gradient.add_(weights - self._start, alpha=settings.prox_mu)
        if self._momentum is not None:
            gradient = self._momentum.mul_(settings.momentum).add_(gradient)
        weights.sub_(gradient, alpha=settings.lr)

    def update(self) -> F32:
        difference: F32 = (self._model.weights - self._start).cpu().numpy()
        return difference


class _Subspace:
    """Steps on the coordinates of a space."""

    def __init__(self, model: FlatModel, start: torch.Tensor, settings: TrainingSettings, space: Space) -> None:
        self._model, self._start, self._settings, self._space = model, start, settings, space
        self._coordinates = np.zeros(space.size, np.float32)
        self._momentum = np.zeros(space.size, np.float32)

    def step(self) -> None:
        weights, gradient, settings = self._model.weights, self._model.gradient, self._settings
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

    def update(self) -> F32:
        return self._coordinates
