"""Models for small images, each a plain `nn.Module`; parameters are counted for MNIST's ten classes.

mlp       784-256-128-64-32-10, the seed project's                     244,522 parameters
2nn       784-200-200-10 (McMahan et al. 2017)                         199,210
cnn       two 5×5 convolutions, 512 units (McMahan et al. 2017)      1,663,370
cnn-fixed the same, whose layer before those 512 stays as drawn         57,226
lite      5×5/2 and two 3×3 convolutions, for phones                    29,322
tiny      5×5 and 3×3 convolutions, for the least traffic                7,946
resnet20  He et al. 2016, for 32×32 colours, with GroupNorm            272,474 of CIFAR-10
"""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.functional import relu


class _Dense(nn.Sequential):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            if index:
                layers[f"relu{index}"] = nn.ReLU()
            layers["abcdefgh"[index]] = nn.Linear(inputs, outputs)
        super().__init__(layers)


def _side(channels: int) -> int:
    return 28 if channels == 1 else 32


def _cnn(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 5, padding=2), pool1=nn.MaxPool2d(2), relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 5, padding=2), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            flatten=nn.Flatten(), a=nn.Linear(64 * (_side(channels) // 4) ** 2, 512), relu3=nn.ReLU(),
            b=nn.Linear(512, classes),
        )
    )  # fmt: skip


def _cnn_fixed(channels: int, classes: int) -> nn.Module:
    """Return `cnn` without 1.6 million weights to learn: random units are enough where what they see is learned.

    So do Rahimi and Recht 2008 ("Weighted sums of random kitchen sinks") with layers that nobody trains.
    """
    module = _cnn(channels, classes)
    module.get_submodule("a").requires_grad_(False)
    return module


def _lite(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 5, stride=2, padding=2), relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, padding=1), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 64, 3, padding=1), pool3=nn.MaxPool2d(2), relu3=nn.ReLU(),
            flatten=nn.Flatten(), a=nn.Linear(64 * (_side(channels) // 8) ** 2, classes),
        )
    )  # fmt: skip


def _tiny(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 5), pool1=nn.MaxPool2d(3), relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            flatten=nn.Flatten(), a=nn.Linear(288, classes),
        )
    )  # fmt: skip


class _Block(nn.Module):
    """Two 3×3 convolutions around which the input is added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=outputs // inputs, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self._inputs, self._outputs = inputs, outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        if self._inputs != self._outputs:
            # Option A of the paper: every other pixel, and zeros for the new channels.
            more = self._outputs - self._inputs
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more // 2, more - more // 2))
        return relu(x + y)


def _resnet20(channels: int, classes: int) -> nn.Module:
    blocks = [
        _Block(*widths) for widths in ((16, 16),) * 3 + ((16, 32), (32, 32), (32, 32), (32, 64), (64, 64), (64, 64))
    ]
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


MODELS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "mlp": lambda channels, classes: _Dense(channels * _side(channels) ** 2, 256, 128, 64, 32, classes),
    "2nn": lambda channels, classes: _Dense(channels * _side(channels) ** 2, 200, 200, classes),
    "cnn": _cnn,
    "cnn-fixed": _cnn_fixed,
    "lite": _lite,
    "tiny": _tiny,
    "resnet20": _resnet20,
}
"""Each from an image's channels (1: of 28×28 pixels, 3: of 32×32) and the number of classes."""
