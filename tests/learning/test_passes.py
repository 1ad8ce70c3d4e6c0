"""The written passes are a faster way to autograd's gradient, and are taken only where they are that."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import featherfed as ff
from featherfed.codec.pipeline import Pipeline
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, layout
from featherfed.learning.passes import Autograd, passes_for
from featherfed.learning.training import Trainer
from featherfed.problem import Examples, Place, Problem
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests.layouts import NAMES, digits, weights_of

KEY = RoundKey(0, 1, 2)


def slow(problem: Problem) -> Problem:
    """The same problem with a loss that is not known to be cross-entropy."""
    return ff.Problem(
        problem.model,
        examples=problem.examples,
        loss=lambda outputs, targets: cross_entropy(outputs, targets),
        settings=problem.settings,
        augment=problem.augment,
    )


@pytest.fixture(scope="module")
def some() -> Examples:
    shard = digits().examples(Place(of=12))
    return Examples(shard.inputs[:95], shard.targets[:95])


@pytest.mark.parametrize("model", NAMES)
def test_both_give_the_same_gradient(model: str, some: Examples, written: str) -> None:
    gradients = []
    for problem, kind in ((digits(model), written), (slow(digits(model)), "Autograd")):
        flat = FlatModel(build(problem, 0))
        passes = passes_for(problem, flat, some)
        assert kind in [each.__name__ for each in type(passes).__mro__]
        parts, targets = passes.prepare(some)
        chosen = torch.arange(40)
        # Stale values must not stay.
        flat.gradient.fill_(7.0)
        loss = passes.gradient(parts, targets, chosen)
        gradients.append((float(loss), flat.gradient))
    (first, written), (second, recorded) = gradients
    assert first == pytest.approx(second, rel=1e-5)
    assert torch.allclose(written, recorded, atol=1e-6)


@pytest.mark.parametrize("spec", ["float32", "mask(1/4)", "lowrank(1/4)", "subspace(500)"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"prox_mu": 0.1}, {"set": {"shift": 1}}],
    ids=["plain", "momentum", "prox", "shift"],
)
def test_both_train_by_the_same_steps(spec: str, settings: dict[str, Any], some: Examples, written: str) -> None:
    space = Pipeline.parse(spec).space(layout(build(digits(), 0)), KEY)
    updates = [
        Trainer(problem, some).train(weights_of(), Training(lr=0.02, **settings), KEY, space)
        for problem in (digits(), slow(digits()))
    ]
    assert updates[0] and updates[1]
    assert np.allclose(updates[0].coordinates, updates[1].coordinates, atol=1e-4)
    assert updates[0].loss == pytest.approx(updates[1].loss, rel=1e-3)


IMAGES = Examples(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]))
ROWS = Examples(torch.zeros(4, 6), torch.tensor([0, 1, 1, 0]))


def shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer)


def tied() -> nn.Module:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 2))
    module[0].register_forward_hook(lambda layer, given, made: 2 * made)
    return module


def half_frozen() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    module[0].bias.requires_grad_(False)
    return module


class Doubled(nn.Sequential):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = 2 * super().forward(inputs)
        return made


@pytest.mark.parametrize(
    ("make", "examples"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 2)), Examples(ROWS.inputs, torch.tensor([0, 1, 2, 0]))),
        (lambda: nn.Sequential(nn.Linear(6, 2)), Examples(ROWS.inputs, torch.tensor([0, 1, -100, 0]))),
        (lambda: nn.Sequential(nn.Linear(6, 2)), Examples(ROWS.inputs, torch.zeros(4, 2))),
        (lambda: nn.Sequential(nn.Linear(6, 2, bias=False)), ROWS),
        (lambda: nn.Sequential(nn.Linear(6, 2), nn.ReLU()), ROWS),
        (half_frozen, ROWS),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), ROWS),
        (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 2)), IMAGES),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.Flatten(), nn.Linear(32, 2)), IMAGES),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(128, 2)), IMAGES),
        (lambda: nn.Sequential(nn.MaxPool2d(3, stride=1), nn.Flatten(), nn.Linear(36, 2)), IMAGES),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), ROWS),
        (shared, ROWS),
        (tied, ROWS),
        (hooked, ROWS),
        (lambda: Doubled(nn.Linear(6, 2)), ROWS),
    ],
)  # fmt: skip
def test_what_is_not_theirs_goes_by_autograd(make: Any, examples: Examples) -> None:
    problem = ff.Problem(make, examples=lambda place: examples)
    assert type(passes_for(problem, FlatModel(build(problem, 0)), examples)) is Autograd


@pytest.mark.parametrize("frozen", [(0,), (2,), (5,), (0, 2), (2, 5)])
def test_frozen_layers_are_passed_through_and_stay(frozen: tuple[int, ...]) -> None:
    images = Examples(torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3)

    def make() -> nn.Module:
        layers = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5))
        module = nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, 3))
        for at in frozen:
            module[at].requires_grad_(False)
        return module

    problem = ff.Problem(make, examples=lambda place: images)
    flat = FlatModel(build(problem, 0))
    assert type(passes_for(problem, flat, images)).__name__ == "Written"
    start = flat.weights.numpy().copy()
    before = [tensor.clone() for tensor in flat.module.parameters() if not tensor.requires_grad]
    space = Pipeline.parse("float32").space(layout(flat.module), KEY)
    updates = [
        Trainer(each, images, model=flat if each is problem else None).train(start, Training(), KEY, space)
        for each in (problem, slow(problem))
    ]
    assert updates[0] and updates[1]
    assert np.allclose(updates[0].coordinates, updates[1].coordinates, atol=1e-6)
    kept = [tensor for tensor in flat.module.parameters() if not tensor.requires_grad]
    assert len(kept) == 2 * len(frozen) and all(map(torch.equal, before, kept))


def test_plain_table_of_numbers_has_the_fast_passes_too(written: str) -> None:
    rows = Examples(torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30).remainder(3))
    problem = ff.Problem(
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), examples=lambda place: rows
    )
    kinds = type(passes_for(problem, FlatModel(build(problem, 0)), rows)).__mro__
    assert written in [each.__name__ for each in kinds]
    start = np.concatenate([p.detach().numpy().ravel() for p in build(problem, 0).parameters()])
    space = Pipeline.parse("float32").space(layout(build(problem, 0)), KEY)
    updates = [Trainer(each, rows).train(start, Training(), KEY, space) for each in (problem, slow(problem))]
    assert updates[0] and updates[1]
    assert np.allclose(updates[0].coordinates, updates[1].coordinates, atol=1e-6)
