"""A model whose learned parameters and gradients are views of two flat vectors: nothing is copied between."""

import torch
from torch import nn


class FlatModel:
    """`weights` and `gradient`: (parameters,) float32 tensors; `module` computes on views of them.

    Frozen parameters are left where they are; a parameter that is used twice has one place.
    """

    def __init__(self, module: nn.Module, device: str = "cpu") -> None:
        self.module = module.to(device)
        learned = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        size = sum(parameter.numel() for parameter in learned)
        self.weights = torch.zeros(size, dtype=torch.float32, device=device)
        self.gradient = torch.zeros(size, dtype=torch.float32, device=device)
        start = 0
        for parameter in learned:
            end = start + parameter.numel()
            self.weights[start:end] = parameter.detach().ravel()
            parameter.data = self.weights[start:end].view(parameter.shape)
            parameter.grad = self.gradient[start:end].view(parameter.shape)
            start = end
