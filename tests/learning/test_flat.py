import torch
from torch.nn.functional import cross_entropy

from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build
from tests.layouts import digits


def test_flat_weights_are_the_model_s_parameters_in_their_order_and_not_a_copy() -> None:
    module = build(digits("2nn"), 3)
    expected = torch.cat([parameter.detach().ravel() for parameter in module.parameters()])
    flat = FlatModel(module)
    assert torch.equal(flat.weights, expected)
    flat.weights.zero_()
    assert all(not parameter.any() for parameter in flat.module.parameters())


def test_flat_gradient_is_the_one_that_torch_computes() -> None:
    images, labels = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 3, 4])
    plain, flat = build(digits("2nn"), 3), FlatModel(build(digits("2nn"), 3))
    for module in (plain, flat.module):
        cross_entropy(module(images), labels).backward()
    expected = torch.cat([parameter.grad.ravel() for parameter in plain.parameters() if parameter.grad is not None])
    assert torch.equal(flat.gradient, expected)
    assert flat.gradient.any()
