"""Phones that train as one batch by `torch.func.vmap`, to be measured beside phones that take turns."""

import torch
from torch import nn

from featherfed.learning.precision import whole_float32


class Batched:
    """Copies of one model, each with weights of its own; `weights`: (phones, *shape) float32 by parameter."""

    def __init__(self, module: nn.Module, phones: int) -> None:
        self.weights = {
            name: parameter.detach().expand(phones, *parameter.shape).clone()
            for name, parameter in module.named_parameters()
        }

        def loss_of(own: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(torch.func.functional_call(module, own, (inputs,)), targets)

        self._gradients = torch.func.vmap(torch.func.grad(loss_of))

    def step(self, inputs: torch.Tensor, targets: torch.Tensor, lr: float) -> None:
        """Make each phone's step of plain SGD on a batch of its own.

        `inputs`: (phones, batch, *shape) float32; `targets`: (phones, batch) int64.
        """
        with whole_float32(inputs.device.type):
            gradients = self._gradients(self.weights, inputs, targets)
        for name, weight in self.weights.items():
            weight.sub_(gradients[name], alpha=lr)
