"""The compiled passes give autograd's gradient, whatever a chain of their layers looks like."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import featherfed as ff
from featherfed.learning import fast
from featherfed.learning.flat import FlatModel
from featherfed.learning.passes import Autograd
from featherfed.problem import Examples

pytest.importorskip("numba", reason="needs numba: pip install 'featherfed[fast]'")


@pytest.fixture(autouse=True)
def with_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_agreed", "numba")


CHAINS = {
    "one channel, a pool that leaves a rest": ((1, 11, 13), lambda: [
        nn.Conv2d(1, 5, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3)]),
    "ReLU before the pool": ((3, 9, 9), lambda: [
        nn.Conv2d(3, 20, 4, padding=2), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(180, 3)]),
    "no ReLU at all": ((2, 8, 8), lambda: [
        nn.Conv2d(2, 16, 3, stride=2, padding=1), nn.Conv2d(16, 7, 2), nn.Flatten(), nn.Linear(63, 2)]),
    "steps, and kernels of one pixel": ((3, 12, 12), lambda: [
        nn.Conv2d(3, 33, 1), nn.ReLU(), nn.Conv2d(33, 18, 5, stride=3, padding=2), nn.ReLU(), nn.Conv2d(18, 40, 3),
        nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(40, 17), nn.ReLU(), nn.Linear(17, 4)]),
    "a step that leaves pixels out": ((1, 10, 10), lambda: [
        nn.Conv2d(1, 4, 2, stride=3), nn.ReLU(), nn.Conv2d(4, 4, 2, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(4, 2)]),
    "wide rows": ((40, 6, 6), lambda: [
        nn.Conv2d(40, 8, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 5)]),
    "pool of one pixel": ((1, 5, 5), lambda: [
        nn.Conv2d(1, 3, 2), nn.MaxPool2d(1), nn.ReLU(), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)]),
    "vectors of an odd length": ((37,), lambda: [
        nn.Linear(37, 21), nn.ReLU(), nn.Linear(21, 19), nn.Linear(19, 1), nn.ReLU(), nn.Linear(1, 3)]),
    "images of three channels as vectors": ((3, 4, 4), lambda: [
        nn.Flatten(), nn.Linear(48, 130), nn.ReLU(), nn.Linear(130, 2)]),
}  # fmt: skip


def passes_of(model: FlatModel, shape: tuple[int, ...]) -> Any:
    passes = fast.compiled_passes(model, shape)
    assert passes is not None
    return passes


@pytest.mark.parametrize("name", CHAINS)
def test_gradient_outputs_and_steps_are_autograds(name: str) -> None:
    shape, layers = CHAINS[name]
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(*layers()))
    passes = passes_of(model, shape)
    inputs = torch.randn(23, *shape)
    classes = list(model.module.children())[-1].out_features
    targets = torch.arange(23).remainder(classes)
    parts, prepared = passes.prepare(Examples(inputs, targets))
    # Of one, of a few, and of more than there was room for; some of them twice.
    for chosen in (torch.tensor([5]), torch.arange(10), torch.tensor([22, 0, 0, 7] * 5)):
        model.gradient.zero_()
        loss = cross_entropy(model.module(inputs[chosen]), targets[chosen])
        torch.autograd.backward(loss)
        wanted = model.gradient.clone()
        model.gradient.fill_(7.0)
        found = passes.gradient(parts, prepared, chosen)
        assert float(found) == pytest.approx(float(loss.detach()), rel=1e-5)
        assert torch.allclose(model.gradient, wanted, atol=1e-6)
        before = model.weights.clone()
        passes.begin()
        again = passes.descend(parts, prepared, chosen, len(chosen), 0.5)
        passes.end()
        # Of dense layers alone, sums of a step have another order than those of a gradient.
        assert float(again) == pytest.approx(float(found), rel=1e-6 if "vectors" in name else 0)
        assert torch.allclose(model.weights, before - 0.5 * wanted, atol=1e-6)
    with torch.no_grad():
        passes.begin()
        assert torch.allclose(passes.outputs(inputs), model.module(inputs), atol=1e-5)
        assert torch.equal(passes.outputs(inputs[3:5]), passes.outputs(inputs)[3:5])


@pytest.mark.parametrize("others", [0.0, 0.2, 0.45, 0.55, 1.0])
@pytest.mark.parametrize("background", [0.0, -0.4242, 3.0])
def test_steps_on_vectors_with_a_background_are_autograds(background: float, others: float) -> None:
    """The passes of most inputs that are one number, of few that are, and the steps of one call and of several."""
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Linear(150, 21), nn.ReLU(), nn.Linear(21, 3)))
    passes = passes_of(model, (150,))
    inputs = torch.where(torch.rand(40, 150) < others, torch.randn(40, 150), torch.tensor(background))
    inputs[0, 0] = background
    targets = torch.arange(40).remainder(3)
    parts, prepared = passes.prepare(Examples(inputs, targets))
    order, start = torch.randperm(40), model.weights.clone()
    losses = []
    for some in torch.split(order, 7):
        model.gradient.zero_()
        loss = cross_entropy(model.module(inputs[some]), targets[some])
        torch.autograd.backward(loss)
        model.weights.sub_(model.gradient, alpha=0.05)
        losses.append(float(loss.detach()))
    wanted = model.weights.clone()
    with torch.no_grad():
        logits = model.module(inputs)
    for calls in (1, 2):
        model.weights.copy_(start)
        passes.begin()
        of_calls = [passes.descend(parts, prepared, some, 7, 0.05) for some in torch.split(order, 42 // calls)]
        outputs = passes.outputs(inputs)
        passes.end()
        assert torch.cat(of_calls).tolist() == pytest.approx(losses, rel=1e-5)
        assert torch.allclose(model.weights, wanted, atol=2e-6)
        assert torch.allclose(outputs, logits, atol=1e-5)


@pytest.mark.parametrize("background", [-0.4242, None])
def test_steps_on_vectors_are_as_near_to_double_precision_as_autograds(background: float | None) -> None:
    """The sums that are kept from step to step, of inputs with a background, too. No ReLU: it would have corners."""
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(784, 60), nn.Linear(60, 10))
    exact = copy.deepcopy(chain).double()
    models = [FlatModel(chain), FlatModel(copy.deepcopy(chain))]
    inputs = torch.randn(600, 784)
    if background is not None:
        inputs = torch.where(torch.rand(600, 784) < 0.2, 2 + inputs / 2, torch.tensor(background))
        inputs[0, 0] = background
    targets = inputs[:, :10].argmax(1)
    order = torch.randperm(600)
    for some in torch.split(order, 10):
        found = cross_entropy(exact(inputs[some].double()), targets[some])
        gradients = torch.autograd.grad(found, list(exact.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(exact.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
    wanted = torch.cat([each.detach().flatten() for each in exact.parameters()])
    distances = []
    problem = ff.Problem(lambda: chain, examples=lambda place: Examples(inputs, targets))
    for model, passes in ((models[0], Autograd(problem, models[0])), (models[1], passes_of(models[1], (784,)))):
        parts, prepared = passes.prepare(Examples(inputs, targets))
        passes.begin()
        for some in torch.split(order, 200):
            passes.descend(parts, prepared, some, 10, 0.05)
        passes.end()
        distances.append(float((model.weights.double() - wanted).square().mean().sqrt()))
    assert 0 < distances[0] < 1e-7
    assert distances[1] < 1.1 * distances[0]


def test_zeros_that_no_relu_made_have_a_gradient() -> None:
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Linear(6, 20), nn.Linear(20, 3)))
    model.weights[: 6 * 20 + 20] = 0
    passes = passes_of(model, (6,))
    inputs, targets = torch.randn(5, 6), torch.arange(5).remainder(3)
    parts, prepared = passes.prepare(Examples(inputs, targets))
    torch.autograd.backward(cross_entropy(model.module(inputs), targets))
    wanted = model.weights - 0.5 * model.gradient
    assert bool(model.gradient[: 6 * 20].all())
    passes.begin()
    passes.descend(parts, prepared, torch.arange(5), 5, 0.5)
    passes.end()
    assert torch.allclose(model.weights, wanted, atol=1e-6)


def test_inputs_may_lie_in_memory_as_they_like() -> None:
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)))
    passes = passes_of(model, (2, 5, 5))
    inputs, targets = torch.randn(5, 5, 2, 16).permute(3, 2, 0, 1), torch.zeros(32, dtype=torch.int64)[::2]
    gradients = []
    for given in (inputs, inputs.contiguous(), inputs.contiguous(memory_format=torch.channels_last)):
        parts, prepared = passes.prepare(Examples(given, targets))
        passes.gradient(parts, prepared, torch.arange(16))
        # As what a problem's own change of its images returns.
        passes.gradient((given,), prepared, torch.arange(16))
        gradients.append(model.gradient.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_trainers_that_share_a_model_take_turns() -> None:
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)))
    first, second = passes_of(model, (1, 5, 5)), passes_of(model, (1, 5, 5))
    examples = [Examples(torch.randn(7, 1, 5, 5), torch.ones(7, dtype=torch.int64)) for _ in range(2)]
    prepared = [each.prepare(some) for each, some in zip((first, second), examples, strict=True)]
    alone = float(first.gradient(*prepared[0], torch.arange(2)))
    second.gradient(*prepared[1], torch.arange(7))
    assert float(first.gradient(*prepared[0], torch.arange(2))) == alone


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", CHAINS)
def test_what_is_no_number_stays_none(name: str, value: float) -> None:
    shape, layers = CHAINS[name]
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(*layers()))
    passes = passes_of(model, shape)
    model.weights.fill_(value)
    parts, targets = passes.prepare(Examples(torch.ones(3, *shape), torch.zeros(3, dtype=torch.int64)))
    assert not np.isfinite(float(passes.descend(parts, targets, torch.arange(3), 3, 0.1)))


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((1, 8, 8), [nn.Conv2d(1, 2, (3, 5)), nn.Flatten(), nn.Linear(48, 2)]),
        ((1, 8, 8), [nn.Conv2d(1, 2, 3, stride=(1, 2)), nn.Flatten(), nn.Linear(36, 2)]),
        ((1, 8, 8), [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)]),
        ((1, 8, 8), [nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]),
        ((1, 8, 8), [nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(2, 2)]),
        ((1, 8, 8), [nn.Conv2d(1, 2, 9), nn.Flatten(), nn.Linear(2, 2)]),
        ((1, 8, 8), [nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 2)]),
        ((6,), [nn.Linear(5, 2)]),
    ],
)  # fmt: skip
def test_what_they_do_not_know_is_torchs(shape: tuple[int, ...], layers: list[nn.Module]) -> None:
    assert fast.compiled_passes(FlatModel(nn.Sequential(*layers)), shape) is None
