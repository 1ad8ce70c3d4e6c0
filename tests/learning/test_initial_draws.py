"""Which models may be drawn by formula: those of which nothing is lost by it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from featherfed.initial_weights import digest_of
from featherfed.learning.initial_draws import initial_draws, initial_weights
from featherfed.learning.models import build
from featherfed.problem_loading import load_problem
from tests import own_problems


def draws(make: Callable[[], nn.Module]) -> tuple[object, ...]:
    modules = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(make())
    return initial_draws(*modules)


@pytest.mark.parametrize(
    "name", ["mnist/mlp", "mnist/2nn", "mnist/cnn", "mnist/tiny", "mnist/lite", "cifar10/resnet20"]
)
def test_our_models_are_drawn(name: str) -> None:
    problem = load_problem(name)
    module = build(problem, 0)
    weights, initial = initial_weights(problem, 5, module)
    assert initial is not None and initial.digest == digest_of(weights)
    assert len(weights) == sum(p.numel() for p in module.parameters())


def test_linear_layers_convolutions_and_norms_are_drawn() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 5, groups=1),
            nn.GroupNorm(2, 8),
            nn.ConvTranspose1d(8, 4, 3),
            nn.Linear(20, 6),
            nn.Linear(1, 1),
        )

    ones, zeros = (1.0, 1.0), (0.0, 0.0)
    assert draws(make) == (75, 75, ones, zeros, 12, 12, 20, 20, 1, 1)


def scaled(factor: float) -> nn.Module:
    layer = nn.Linear(100, 30)
    with torch.no_grad():
        layer.weight *= factor
    return layer


def normal() -> nn.Module:
    layer = nn.Linear(100, 30)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def pretrained() -> nn.Module:
    layer = nn.Linear(100, 30)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(3000.0).reshape(30, 100) / 1e5)
    return layer


def twins() -> nn.Module:
    one, other = nn.Linear(20, 6), nn.Linear(20, 6)
    with torch.no_grad():
        other.weight.copy_(-one.weight)
    return nn.Sequential(one, other)


def tied() -> nn.Module:
    words, out = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
    out.weight = words.weight
    return nn.Sequential(words, out)


OWN: dict[str, Callable[[], nn.Module]] = {
    "smaller": lambda: scaled(0.5),
    "larger": lambda: scaled(1.5),
    "normal": normal,
    "pretrained": pretrained,
    "equal but for signs": twins,
    "tied to an embedding": tied,
    "recurrent": lambda: nn.GRU(8, 8),
}


@pytest.mark.parametrize("kind", OWN)
def test_values_of_its_own_travel(kind: str) -> None:
    assert draws(OWN[kind]) == ()


def test_a_model_of_its_own_begins_as_it_does_under_the_run_s_seed() -> None:
    problem = own_problems.two_inputs
    weights, initial = initial_weights(problem, 5, build(problem, 0))
    assert initial is None
    own = np.concatenate([p.detach().numpy().ravel() for p in build(problem, 5).parameters()])
    assert np.array_equal(weights, own)


def test_frozen_parameters_are_not_drawn() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
        model[0].requires_grad_(False)
        return model

    assert draws(make) == (3, 3)
