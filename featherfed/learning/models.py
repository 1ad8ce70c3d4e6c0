"""The models of docs/ARCHITECTURE.md, each a plain `nn.Module` over (batch, 1, 28, 28) images and ten classes.

mlp    784-256-128-64-32-10, the seed project's                     244,522 parameters
2nn    784-200-200-10 (McMahan et al. 2017)                         199,210
cnn    two 5×5 convolutions, 512 units (McMahan et al. 2017)      1,663,370
lite   5×5/2 and two 3×3 convolutions, for phones                    29,322
tiny   5×5 and 3×3 convolutions, for the least traffic                7,946
"""

import itertools
from collections import OrderedDict

import torch
from torch import nn

from featherfed.codec.layout import Layout, Tensor
from featherfed.errors import ConfigError
from featherfed.learning.names import MODELS


class _Dense(nn.Sequential):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            if index:
                layers[f"relu{index}"] = nn.ReLU()
            layers["abcdefgh"[index]] = nn.Linear(inputs, outputs)
        super().__init__(layers)


def _cnn() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5, padding=2), pool1=nn.MaxPool2d(2), relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 5, padding=2), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            flatten=nn.Flatten(), a=nn.Linear(3136, 512), relu3=nn.ReLU(), b=nn.Linear(512, 10),
        )
    )  # fmt: skip


def _lite() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 5, stride=2, padding=2), relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, padding=1), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 64, 3, padding=1), pool3=nn.MaxPool2d(2), relu3=nn.ReLU(),
            flatten=nn.Flatten(), a=nn.Linear(576, 10),
        )
    )  # fmt: skip


def _tiny() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 5), pool1=nn.MaxPool2d(3), relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            flatten=nn.Flatten(), a=nn.Linear(288, 10),
        )
    )  # fmt: skip


def build(name: str, seed: int) -> nn.Module:
    """Return the model with weights drawn from `seed`; torch's own random state is left as it was."""
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}; there are {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mlp":
            return _Dense(784, 256, 128, 64, 32, 10)
        if name == "2nn":
            return _Dense(784, 200, 200, 10)
        return {"cnn": _cnn, "lite": _lite, "tiny": _tiny}[name]()


def layout(model: nn.Module) -> Layout:
    """Return how the model's parameters lie in its flat vector."""
    return Layout(tuple(Tensor(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()))
