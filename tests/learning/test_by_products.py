"""A convolution by products of matrices is torch's, with its gradients, to rounding."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherfed.learning.by_products import ByProducts

SETTINGS: list[dict[str, Any]] = [
    {},
    {"padding": 2},
    {"stride": 2, "padding": (1, 0)},
    {"dilation": (1, 2), "stride": (2, 1), "bias": False},
    {"padding": "valid"},
    {"groups": 2},
    {"padding": 1, "padding_mode": "circular"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_values_and_gradients_are_those_of_torch(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(4, 6, (3, 2), **settings), torch.randn(5, 4, 9, 8, requires_grad=True)

    def results() -> list[torch.Tensor]:
        outputs = layer(images)
        return [outputs, *torch.autograd.grad(outputs.square().sum(), [images, *layer.parameters()])]

    usual = results()
    with ByProducts():
        products = results()
    assert len(usual) == len(products)
    for one, other in zip(usual, products, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-5)


def test_outputs_are_as_contiguous_as_those_of_torch() -> None:
    layer, images = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    with ByProducts():
        assert layer(images).view(2, -1).shape == (2, 36)


def test_however_it_is_called() -> None:
    images, weight, bias = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(4)
    with ByProducts():
        by_name = functional.conv2d(input=images, weight=weight, bias=bias, padding=[1])  # type: ignore[call-overload]
        one_image = functional.conv2d(images[0], weight, bias, padding=1)
        line = functional.conv1d(images[0].flatten(1), weight[0], padding=1)
    assert torch.allclose(by_name, functional.conv2d(images, weight, bias, padding=1), atol=1e-5)
    assert torch.equal(one_image, functional.conv2d(images[0], weight, bias, padding=1))
    assert torch.equal(line, functional.conv1d(images[0].flatten(1), weight[0], padding=1))
