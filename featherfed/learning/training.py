"""One phone's local training: minibatch SGD on flat vectors.

With weights w, gradient g of the batch's mean loss, learning rate η, momentum β, weight decay λ and FedProx's μ
(Li et al. 2020) around the weights w₀ that the phone was given:

    g ← g + λw + μ(w − w₀),    m ← βm + g,    w ← w − ηm

A structured update (Konečný et al. 2016, section 2) trains coordinates c of a subspace: w = w₀ + expand(c), and c steps
by the gradient pulled back into it: the restriction is part of the training, and not a projection after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import one_hot, pad

from featherfed.codec.space import Space
from featherfed.learning.backprop import Backprop
from featherfed.learning.data import Examples
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build
from featherfed.randomness import RoundKey

F32 = npt.NDArray[np.float32]
CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What a round asks of a phone; `batch_size` 0 is the whole shard (FedSGD with one epoch).

    `shift`: pixels, up and down and left and right, that an image is moved by at most, drawn anew for each epoch.
    """

    epochs: int = 1
    batch_size: int = 10
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    prox_mu: float = 0.0
    shift: int = 0


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """`coordinates`: (space.size,) float32, what to add; `loss`: mean over the last epoch's batches, in nats."""

    coordinates: F32
    steps: int
    examples: int
    loss: float


class Trainer:
    """One phone's model and examples, ready to train."""

    def __init__(
        self, model_name: str, examples: Examples, device: str = "cpu", *, model: FlatModel | None = None
    ) -> None:
        """`model` may be shared by trainers that take turns: every training begins by loading its weights."""
        self._model = model or FlatModel(build(model_name, 0), device)
        self._backprop = Backprop(self._model)
        self._images = (
            examples.images.to(device).permute(0, 2, 3, 1).contiguous()
        )  # (examples, height, width, channels)
        self._labels = one_hot(examples.labels, CLASSES).to(device, torch.float32)
        self._device = device

    @property
    def examples(self) -> int:
        """How many examples this phone trains on: its weight in the mean."""
        return len(self._labels)

    @torch.inference_mode()
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
        stepper = _stepper(self._model, self._backprop, start, settings, space)
        order_of, moves_of = key.generator("shuffle"), key.generator("shift")
        count = self.examples
        batch = settings.batch_size or count
        places = at_all_places(self._images, settings.shift)
        steps = 0
        losses: list[torch.Tensor] = []
        for _ in range(settings.epochs):
            order = torch.from_numpy(order_of.permutation(count)).to(self._device)
            moves = torch.from_numpy(moves_of.integers(0, len(places[0]), (2, count))).to(self._device)
            losses.clear()
            for chosen, down, right in zip(*(torch.split(each, batch) for each in (order, *moves)), strict=True):
                if stopped():
                    return None
                images = places[chosen, down, right] if settings.shift else self._images.index_select(0, chosen)
                losses.append(stepper.step(images.permute(0, 3, 1, 2), self._labels.index_select(0, chosen)))
                steps += 1
        return LocalUpdate(stepper.update(), steps, count, float(torch.stack(losses).mean()))


def at_all_places(images: torch.Tensor, shift: int) -> torch.Tensor:
    """Return each image at each place: (examples, 2·shift + 1, 2·shift + 1, height, width, channels), a view.

    What comes in at the edges is background, the darkest value that there is.
    """
    _, height, width, _ = images.shape
    framed = pad(images, (0, 0, shift, shift, shift, shift), value=float(images.min())) if shift else images
    return framed.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)


class _Stepper(Protocol):
    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Train on one batch; return its loss."""

    def update(self) -> F32:
        """Return the coordinates of what was trained."""


def _stepper(
    model: FlatModel, backprop: Backprop, start: torch.Tensor, settings: TrainingSettings, space: Space
) -> _Stepper:
    if not space.identity:
        if space.entries is not None:
            return _Entries(model, backprop, start, settings, space.entries)
        return _Subspace(model, backprop, start, settings, space)
    if settings.momentum or settings.weight_decay or settings.prox_mu:
        return _Flat(model, backprop, start, settings)
    return _Plain(model, backprop, start, settings)


class _Plain:
    """Steps on all weights by the gradient alone, which is never in memory as a whole."""

    def __init__(self, model: FlatModel, backprop: Backprop, start: torch.Tensor, settings: TrainingSettings) -> None:
        self._model, self._backprop, self._start, self._settings = model, backprop, start, settings

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self._backprop.descend(images, labels, self._settings.lr)

    def update(self) -> F32:
        difference: F32 = (self._model.weights - self._start).cpu().numpy()
        return difference


class _Flat(_Plain):
    """Steps on all weights with momentum, weight decay or a proximal term."""

    def __init__(self, model: FlatModel, backprop: Backprop, start: torch.Tensor, settings: TrainingSettings) -> None:
        super().__init__(model, backprop, start, settings)
        self._momentum = torch.zeros_like(start) if settings.momentum else None

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        weights, gradient, settings = self._model.weights, self._model.gradient, self._settings
        loss = self._backprop.gradient(images, labels)
        pull = settings.weight_decay + settings.prox_mu
        if pull:
            gradient.add_(weights, alpha=pull)
        if settings.prox_mu:
            gradient.sub_(self._start, alpha=settings.prox_mu)
        if self._momentum is not None:
            gradient = self._momentum.mul_(settings.momentum).add_(gradient)
        weights.sub_(gradient, alpha=settings.lr)
        return loss


class _Entries:
    """Steps on some entries of the weights; the others are never touched."""

    def __init__(
        self,
        model: FlatModel,
        backprop: Backprop,
        start: torch.Tensor,
        settings: TrainingSettings,
        entries: npt.NDArray[np.int64],
    ) -> None:
        self._model, self._backprop, self._settings = model, backprop, settings
        self._entries = torch.from_numpy(entries).to(start.device)
        self._start = start.index_select(0, self._entries)
        self._coordinates = torch.zeros_like(self._start)
        self._momentum = torch.zeros_like(self._start) if settings.momentum else None

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        settings, coordinates = self._settings, self._coordinates
        loss = self._backprop.gradient(images, labels)
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


class _Subspace:
    """Steps on the coordinates of a space."""

    def __init__(
        self,
        model: FlatModel,
        backprop: Backprop,
        start: torch.Tensor,
        settings: TrainingSettings,
        space: Space,
    ) -> None:
        self._model, self._backprop, self._start = model, backprop, start
        self._settings, self._space = settings, space
        self._coordinates = np.zeros(space.size, np.float32)
        self._momentum = np.zeros(space.size, np.float32)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        weights, gradient, settings = self._model.weights, self._model.gradient, self._settings
        loss = self._backprop.gradient(images, labels)
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
