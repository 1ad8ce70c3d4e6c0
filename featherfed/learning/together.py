"""Phones of one model that train as one batch: a GPU takes as long to start a kernel for one phone as for many.

Weights of all phones are one matrix, (phones, parameters), and `torch.func.vmap` computes the gradients of all rows at
once, each on examples of its own. What a phone is trained on, in what order and with which weights, is what `Trainer`
gives it alone, so its update differs by rounding only.

Phones with fewer examples are through earlier, and have smaller last batches: in each step those with batches of one
size are a batch of their own, and nothing is padded. So any loss does that takes a batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from featherfed.learning.models import training_mode
from featherfed.learning.passes import Loss, Parts
from featherfed.learning.precision import whole_float32
from featherfed.learning.training import LocalUpdate, Trainer, add_pulls
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
        updates += _Batch(trainers[some], weights[some], training, keys[some]).updates()
    return updates


class _Batch:
    def __init__(
        self, trainers: Sequence[Trainer], weights: Sequence[F32], training: Training, keys: Sequence[RoundKey]
    ) -> None:
        self._trainers, self._training, self._keys = trainers, training, keys
        self._device, module = trainers[0].device, trainers[0].module
        self._weights = torch.from_numpy(np.stack(weights)).to(self._device)
        self._start = self._weights.clone()
        self._momentum = torch.zeros_like(self._weights) if training.momentum else None
        self._copies = Copies(module, trainers[0].loss)
        self._module = module

    def updates(self) -> list[LocalUpdate | None]:
        steps = [0] * len(self._trainers)
        losses: list[list[torch.Tensor]] = []
        with torch.no_grad(), whole_float32(self._device):
            training_mode(self._module)
            epochs = [
                trainer.epochs(self._training, key) for trainer, key in zip(self._trainers, self._keys, strict=True)
            ]
            for _ in range(self._training.epochs):
                losses = [[] for _ in self._trainers]
                for rows, parts, targets in self._batches([next(epoch) for epoch in epochs]):
                    for row, loss in zip(rows, self._step(rows, parts, targets), strict=True):
                        losses[row].append(loss)
                        steps[row] += 1
            changed = (self._weights - self._start).cpu().numpy()
            means = [float(torch.stack(each).mean()) for each in losses]
        finite = np.isfinite(changed).all(axis=1) & np.isfinite(means)
        return [
            LocalUpdate(changed[row], steps[row], trainer.examples, means[row]) if finite[row] else None
            for row, trainer in enumerate(self._trainers)
        ]

    def _batches(
        self, epochs: list[tuple[Parts, bool, torch.Tensor]]
    ) -> Iterator[tuple[list[int], Parts, torch.Tensor]]:
        """Give the batches of an epoch: whose they are, inputs and targets, (phones, batch, …)."""
        sizes = [trainer.examples for trainer in self._trainers]
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        # All examples in one piece: a batch of all phones is read at once.
        inputs = tuple(torch.cat(parts) for parts in zip(*(parts for parts, _, _ in epochs), strict=True))
        targets = torch.cat([trainer.targets for trainer in self._trainers])
        of_targets = [order + start for (_, _, order), start in zip(epochs, starts, strict=True)]
        of_inputs = [
            torch.arange(start, start + size, device=self._device) if in_order else chosen
            for (_, in_order, _), chosen, start, size in zip(epochs, of_targets, starts, sizes, strict=True)
        ]
        batch = self._training.batch_size or max(sizes)
        for at in range(0, max(sizes), batch):
            alike: dict[int, list[int]] = {}
            for row, size in enumerate(sizes):
                if at < size:
                    alike.setdefault(min(batch, size - at), []).append(row)
            for count, rows in alike.items():
                chosen = slice(at, at + count)
                read = torch.cat([of_inputs[row][chosen] for row in rows])
                known = torch.cat([of_targets[row][chosen] for row in rows])
                shape = len(rows), count
                parts = tuple(part.index_select(0, read).view(*shape, *part.shape[1:]) for part in inputs)
                yield rows, parts, targets.index_select(0, known).view(*shape, *targets.shape[1:])

    def _step(self, rows: list[int], parts: Parts, targets: torch.Tensor) -> torch.Tensor:
        """Step the weights of some phones; return their losses, (phones,)."""
        settings = self._training
        all_of_them = len(rows) == len(self._weights)
        index = torch.tensor(rows, device=self._device)

        def taken(tensor: torch.Tensor) -> torch.Tensor:
            return tensor if all_of_them else tensor.index_select(0, index)

        weights = taken(self._weights)
        gradient, losses = self._copies.gradient(weights, parts, targets)
        add_pulls(gradient, weights, taken(self._start), settings)
        if self._momentum is not None:
            gradient = taken(self._momentum).mul_(settings.momentum).add_(gradient)
            if not all_of_them:
                self._momentum.index_copy_(0, index, gradient)
        weights.sub_(gradient, alpha=settings.lr)
        if not all_of_them:
            self._weights.index_copy_(0, index, weights)
        return losses
