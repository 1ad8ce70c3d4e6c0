"""Phones of one model that train as one batch: a GPU takes as long to start a kernel for one phone as for many.

Weights of all phones are one matrix, (phones, parameters), and `torch.func.vmap` computes the gradients of all rows at
once, each on examples of its own. What a phone is trained on, in what order and with which weights, is what `Trainer`
gives it alone, so its update differs by rounding only.

Phones with fewer examples are through earlier, and have smaller last batches: in each step those with batches of one
size are a batch of their own, and nothing is padded. So any loss does that takes a batch.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from featherfed.learning.by_products import ByProducts
from featherfed.learning.models import training_mode
from featherfed.learning.passes import Loss, Parts
from featherfed.learning.precision import whole_float32
from featherfed.learning.replay import Replayed
from featherfed.learning.training import Epoch, LocalUpdate, Trainer, add_pulls, seed_torch
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training

F32 = npt.NDArray[np.float32]

AT_ONCE_BYTES = 4e9
"""What weights, first weights, gradients and momenta of phones in one batch take at most; more are several batches."""


class Copies:
    """Copies of one model that compute at once, each with its own weights in the order of its learned parameters."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        learned = [(name, each.shape) for name, each in module.named_parameters() if each.requires_grad]
        sizes = [shape.numel() for _, shape in learned]

        def loss_of(flat: torch.Tensor, parts: Parts, targets: torch.Tensor) -> torch.Tensor:
            pieces = torch.split(flat, sizes)
            own = {name: piece.view(shape) for (name, shape), piece in zip(learned, pieces, strict=True)}
            with ByProducts():
                return loss(torch.func.functional_call(module, own, parts), targets)

        self._of_each = torch.func.vmap(torch.func.grad_and_value(loss_of))

    def gradient(self, weights: torch.Tensor, parts: Parts, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of all copies, (copies, parameters), and their losses, (copies,).

        `weights`: (copies, parameters) float32; `parts` and `targets`: (copies, batch, …). Raises `RuntimeError` for
        what cannot be computed for many at once, as dropout.
        """
        gradient, loss = self._of_each(weights, parts, targets)
        return gradient, loss


def train_as_one(
    trainers: Sequence[Trainer], weights: Sequence[F32], training: Training, keys: Sequence[RoundKey]
) -> list[LocalUpdate | None]:
    """Return what `Trainer.train` would of each trainer, to rounding; None for one that diverged, to be told by itself.

    All trainers are of one problem and one device; `weights` are each phone's, (parameters,) float32. They train in
    the space of all weights. Raises what computing for many at once raises: then they train in turns.
    """
    if not trainers:
        return []
    at_once = max(1, int(AT_ONCE_BYTES / (4 * weights[0].nbytes)))
    updates: list[LocalUpdate | None] = []
    for first in range(0, len(trainers), at_once):
        some = slice(first, first + at_once)
        updates += _halved(trainers[some], weights[some], training, keys[some])
    return updates


def _halved(
    trainers: Sequence[Trainer], weights: Sequence[F32], training: Training, keys: Sequence[RoundKey]
) -> list[LocalUpdate | None]:
    """Train as one batch, or as two where that does not fit: what a model's activations take nobody knows before."""
    try:
        return _Batch(trainers, weights, training, keys).updates()
    except torch.OutOfMemoryError:
        if len(trainers) < 2:
            raise
    half = len(trainers) // 2
    return [
        update
        for some in (slice(half), slice(half, None))
        for update in _halved(trainers[some], weights[some], training, keys[some])
    ]


@dataclass(frozen=True, slots=True)
class _Step:
    """Which phones make a step: `rows` of the weights, and where in their epoch they are."""

    rows: torch.Tensor
    at: slice
    number: torch.Tensor
    """Its place among the epoch's losses."""


class _Batch:
    def __init__(
        self, trainers: Sequence[Trainer], weights: Sequence[F32], training: Training, keys: Sequence[RoundKey]
    ) -> None:
        self._trainers, self._training, self._keys = trainers, training, keys
        self._device = trainers[0].device
        self._start = self._uploaded(weights)
        self._weights = self._start.clone()
        self._momentum = torch.zeros_like(self._weights) if training.momentum else None
        self._copies = Copies(trainers[0].module, trainers[0].loss)
        self._sizes = [trainer.examples for trainer in trainers]
        self._starts = np.cumsum([0, *self._sizes[:-1]]).tolist()
        # All examples in one piece: a batch of all phones is read at once.
        self._targets = torch.cat([trainer.targets for trainer in trainers])
        self._inputs: Parts = ()
        self._batch = training.batch_size or max(self._sizes)
        self._steps = self._planned()
        self._losses = torch.zeros(len(trainers), len(self._steps), device=self._device)

    def _uploaded(self, weights: Sequence[F32]) -> torch.Tensor:
        """Return all weights on the device, (phones, parameters); what phones share goes there once."""
        kept: dict[int, torch.Tensor] = {}
        for each in weights:
            if id(each) not in kept:
                kept[id(each)] = torch.from_numpy(each).to(self._device)
        return torch.stack([kept[id(each)] for each in weights])

    def _planned(self) -> list[_Step]:
        """Return the steps of an epoch; those with batches of one size make one step."""
        batch = self._batch
        planned: list[_Step] = []
        for at in range(0, max(self._sizes), batch):
            alike: dict[int, list[int]] = {}
            for row, size in enumerate(self._sizes):
                if at < size:
                    alike.setdefault(min(batch, size - at), []).append(row)
            for count, rows in alike.items():
                chosen, number = (torch.tensor(each, device=self._device) for each in (rows, [len(planned)]))
                planned.append(_Step(chosen, slice(at, at + count), number))
        return planned

    def updates(self) -> list[LocalUpdate | None]:
        """Return the phones' updates; None for one that is no number."""
        settings, replayed = self._training, Replayed(self._step, self._device)
        of_size = Counter((len(step.rows), step.at.stop - step.at.start) for step in self._steps)
        left = {size: count * settings.epochs for size, count in of_size.items()}
        with torch.no_grad(), whole_float32(self._device), replayed.stream():
            training_mode(self._trainers[0].module)
            epochs = [
                self._next_of(trainer.epochs(settings, key), trainer, key)
                for trainer, key in zip(self._trainers, self._keys, strict=True)
            ]
            first_step: contextlib.AbstractContextManager[None] = _drawing_nothing()
            for _ in range(settings.epochs):
                of_inputs, of_targets = self._epoch([epoch() for epoch in epochs])
                for step in self._steps:
                    read, known = (order[:, step.at].index_select(0, step.rows) for order in (of_inputs, of_targets))
                    left[read.shape[0], read.shape[1]] -= 1
                    with first_step:
                        replayed(step.rows, step.number, read, known, left=left[read.shape[0], read.shape[1]])
                    first_step = contextlib.nullcontext()
            changed = self._weights.sub_(self._start)
            finite = changed.isfinite().all(dim=1).tolist()
            losses = self._losses.cpu().numpy()
            updates = self._brought_back(changed)
        made = [-(-size // self._batch) for size in self._sizes]
        means = [float(row.sum() / steps) for row, steps in zip(losses, made, strict=True)]
        return [
            LocalUpdate(update, steps * settings.epochs, trainer.examples, mean) if fine and np.isfinite(mean) else None
            for update, steps, trainer, mean, fine in zip(updates, made, self._trainers, means, finite, strict=True)
        ]

    def _next_of(self, epochs: Iterator[Epoch], trainer: Trainer, key: RoundKey) -> Callable[[], Epoch]:
        """Return what gives a phone's next epoch."""
        return _Draws(epochs, key, self._device) if trainer.augments else lambda: next(epochs)

    def _brought_back(self, changed: torch.Tensor) -> list[F32]:
        """Return rows of the device's, each an array of its own.

        A GPU writes into memory that never moves several times as fast as into any other, and one row of it is enough.
        """
        if changed.device.type == "cpu":
            return list(changed.numpy())
        fixed = torch.empty(changed.shape[1], pin_memory=True)
        return [fixed.copy_(row).numpy().copy() for row in changed]

    def _epoch(self, given: list[Epoch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Take an epoch's inputs; return the places that each phone reads, there and in the targets, (phones, most)."""
        if not self._inputs:
            self._inputs = tuple(torch.cat(parts) for parts in zip(*(parts for parts, _, _ in given), strict=True))
        elif any(changed for _, changed, _ in given):
            for kept, new in zip(self._inputs, zip(*(parts for parts, _, _ in given), strict=True), strict=True):
                torch.cat(new, out=kept)
        of_targets = [order + start for (_, _, order), start in zip(given, self._starts, strict=True)]
        of_inputs = [
            torch.arange(start, start + size, device=self._device) if in_order else chosen
            for (_, in_order, _), chosen, start, size in zip(given, of_targets, self._starts, self._sizes, strict=True)
        ]
        read, known = (pad_sequence(orders, batch_first=True) for orders in (of_inputs, of_targets))
        return read, known

    def _step(self, rows: torch.Tensor, number: torch.Tensor, read: torch.Tensor, known: torch.Tensor) -> None:
        """Step the weights of some phones by the examples `read` and targets `known`, (phones, batch)."""
        settings, momentum = self._training, self._momentum
        all_of_them = len(rows) == len(self._weights)

        def taken(tensor: torch.Tensor) -> torch.Tensor:
            return tensor if all_of_them else tensor.index_select(0, rows)

        parts = tuple(part.index_select(0, read.view(-1)).view(*read.shape, *part.shape[1:]) for part in self._inputs)
        targets = self._targets.index_select(0, known.view(-1)).view(*known.shape, *self._targets.shape[1:])
        weights = taken(self._weights)
        gradient, losses = self._copies.gradient(weights, parts, targets)
        add_pulls(gradient, weights, taken(self._start), settings)
        if momentum is not None:
            gradient = taken(momentum).mul_(settings.momentum).add_(gradient)
            if not all_of_them:
                momentum.index_copy_(0, rows, gradient)
        weights.sub_(gradient, alpha=settings.lr)
        if not all_of_them:
            self._weights.index_copy_(0, rows, weights)
        self._losses.index_put_((rows, number), losses.to(self._losses.dtype))


class _Draws:
    """A phone's epochs, for which an augmentation of the user's may have torch draw: as if no other phone drew."""

    def __init__(self, epochs: Iterator[Epoch], key: RoundKey, device: str) -> None:
        self._epochs, self._key, self._on_gpu = epochs, key, torch.device(device).type == "cuda"
        self._states: list[torch.Tensor] = []

    def __call__(self) -> Epoch:
        """Return the next one."""
        with torch.random.fork_rng(devices=None if self._on_gpu else []):
            if not self._states:
                seed_torch(self._key)
            else:
                torch.set_rng_state(self._states[0])
                if self._on_gpu:
                    torch.cuda.set_rng_state(self._states[1])
            given = next(self._epochs)
            self._states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if self._on_gpu else [])]
        return given


@contextlib.contextmanager
def _drawing_nothing() -> Iterator[None]:
    """Raise `RuntimeError` where a step draws by Python's generator or numpy's: all phones would share the draw."""

    def states() -> tuple[object, ...]:
        drawn = np.random.get_state(legacy=False)["state"]
        return random.getstate(), drawn["key"].tobytes(), drawn["pos"]

    before = states()
    yield
    if states() != before:
        raise RuntimeError("the model draws at random")
