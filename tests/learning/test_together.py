"""Phones that train as one batch get the updates that each of them gets by itself, to rounding."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from featherfed.codec.pipeline import Pipeline
from featherfed.learning import together
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, layout
from featherfed.learning.together import train_as_one
from featherfed.learning.training import LocalUpdate, Trainer
from featherfed.problem import Examples, Place, Problem
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests import own_problems
from tests.layouts import digits

SIZES = (40, 40, 33, 25)
"""Of phones' shards: two are alike, one has a smaller last batch, one fewer batches, too."""
FEWER = (20, 20, 13, 5)
"""The same for longer training: where an activation is within rounding of a ReLU's corner, both ways part for good."""


def phones_of(problem: Problem, sizes: tuple[int, ...] = SIZES, device: str = "cpu") -> list[Trainer]:
    """Return trainers that share a module, as those of one process do."""
    model = FlatModel(build(problem, 0), device)
    trainers = []
    for index, size in enumerate(sizes):
        whole = problem.examples(Place(index=index, of=len(sizes)))
        parts = tuple(part[:size] for part in whole.parts)
        inputs = parts if isinstance(whole.inputs, tuple) else parts[0]
        trainers.append(Trainer(problem, Examples(inputs, whole.targets[:size]), device, model=model))
    return trainers


def compared(
    problem: Problem, trainers: list[Trainer], **settings: Any
) -> list[tuple[LocalUpdate, LocalUpdate | None]]:
    """Return each phone's update by itself, and in one batch; phones begin at weights of their own."""
    module, training = build(problem, 0), Training(**{"lr": 0.05, **settings})
    first = np.concatenate([each.detach().numpy().ravel() for each in module.parameters() if each.requires_grad])
    drawn = np.random.default_rng(1)
    starts = [first + drawn.normal(0, 0.01, first.shape).astype(np.float32) for _ in trainers]
    keys = [RoundKey(3, 2, index) for index in range(len(trainers))]
    alone = []
    for trainer, start, key in zip(trainers, starts, keys, strict=True):
        update = trainer.train(start, training, key, Pipeline.parse("float32").space(layout(module), key))
        assert update is not None
        alone.append(update)
    return list(zip(alone, train_as_one(trainers, starts, training, keys), strict=True))


def assert_alike(pairs: list[tuple[LocalUpdate, LocalUpdate | None]]) -> None:
    for alone, beside in pairs:
        assert beside is not None
        assert np.abs(alone.coordinates).max() > 1e-3, "something was learned"
        assert np.abs(alone.coordinates - beside.coordinates).max() < 1e-5
        assert (alone.steps, alone.examples) == (beside.steps, beside.examples)
        assert alone.loss == pytest.approx(beside.loss, abs=1e-5)


@pytest.mark.parametrize("model", ["lite", "tiny", "2nn", "mlp"])
def test_phones_with_different_numbers_of_examples_train_as_each_alone(model: str) -> None:
    problem = digits(model)
    # Few and small steps: where two pixels are a pool's largest within rounding, both ways part for good.
    assert_alike(compared(problem, phones_of(problem), lr=0.02))


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "epochs": 2},
        {"weight_decay": 0.1},
        {"prox_mu": 0.5, "epochs": 2},
        {"batch_size": 0},
        {"batch_size": 7, "momentum": 0.5, "weight_decay": 0.01, "prox_mu": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("problem", [digits("2nn"), own_problems.regression], ids=lambda problem: problem.name)
def test_every_setting_of_sgd_means_the_same(problem: Problem, settings: dict[str, Any]) -> None:
    assert_alike(compared(problem, phones_of(problem, FEWER), **{"lr": 0.02, **settings}))


@pytest.mark.parametrize("moves", [{"shift": 1}, {"warp": 1.0}, {"warp": 1.0, "warp_epochs": 2}], ids=str)
def test_images_are_moved_as_for_each_alone(moves: dict[str, Any]) -> None:
    problem = digits("2nn")
    assert_alike(compared(problem, phones_of(problem, FEWER), lr=0.02, epochs=3, set=moves))


@pytest.mark.parametrize("name", ["regression", "two_inputs", "frozen"])
def test_a_users_own_model_and_loss_train_as_each_alone(name: str) -> None:
    problem: Problem = getattr(own_problems, name)
    assert_alike(compared(problem, phones_of(problem), epochs=2))


def test_phones_whose_weights_exceed_the_memory_of_one_batch_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = digits("2nn")
    made: list[int] = []
    monkeypatch.setattr(together, "AT_ONCE_BYTES", 3.5 * 16 * 199_210)
    monkeypatch.setattr(together._Batch, "_step", counted(together._Batch._step, made))
    assert_alike(compared(problem, phones_of(problem, (20,) * 5)))
    assert made == [3, 3, 2, 2]


def counted(step: Any, made: list[int]) -> Any:
    def counting(self: Any, rows: list[int], *given: Any) -> torch.Tensor:
        made.append(len(rows))
        losses: torch.Tensor = step(self, rows, *given)
        return losses

    return counting


def test_phones_of_one_size_are_one_batch_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = digits("tiny")
    made: list[int] = []
    monkeypatch.setattr(together._Batch, "_step", counted(together._Batch._step, made))
    compared(problem, phones_of(problem, (25,) * 4))
    assert made == [4, 4, 4]


def test_a_phone_that_diverges_is_left_and_the_others_are_not() -> None:
    problem = digits("tiny")
    trainers = phones_of(problem)
    module = build(problem, 0)
    start = np.concatenate([each.detach().numpy().ravel() for each in module.parameters()])
    starts = [start, np.full_like(start, np.inf), start, start]
    keys = [RoundKey(3, 2, index) for index in range(len(trainers))]
    updates = train_as_one(trainers, starts, Training(lr=0.05), keys)
    assert [update is None for update in updates] == [False, True, False, False]


def test_a_model_that_draws_at_random_cannot_be_one_batch() -> None:
    problem: Problem = own_problems.tokens
    trainers = phones_of(problem)
    start = np.zeros(layout(build(problem, 0)).size, np.float32)
    with pytest.raises(RuntimeError):
        train_as_one(trainers, [start] * 4, Training(lr=0.05), [RoundKey(3, 2, index) for index in range(4)])


def test_a_model_that_draws_by_python_cannot_be_one_batch() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.layer(inputs) * (random.random() > 0.5)
            return scores

    trainers = phones_of(replace(own_problems.regression, model=Drops))
    keys = [RoundKey(3, 2, index) for index in range(4)]
    with pytest.raises(RuntimeError, match="the model draws at random"):
        train_as_one(trainers, [np.zeros(5, np.float32)] * 4, Training(lr=0.05), keys)


def test_an_augmentation_that_draws_by_torch_draws_for_each_phone_what_it_does_alone() -> None:
    def augment(settings: Any) -> Any:
        return lambda inputs, generator: inputs + 0.1 * torch.randn(inputs.shape)

    problem = replace(own_problems.regression, augment=augment)
    before = torch.get_rng_state()
    assert_alike(compared(problem, phones_of(problem), epochs=3))
    assert torch.equal(torch.get_rng_state(), before), "whoever else draws is not disturbed"


def test_a_loss_of_another_type_is_a_batch_too() -> None:
    def doubled(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(outputs.double(), targets.double())

    problem = replace(own_problems.regression, loss=doubled)
    assert_alike(compared(problem, phones_of(problem), epochs=2))


def test_phones_whose_activations_do_not_fit_are_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    updates, made = together._Batch.updates, []

    def full(self: Any) -> Any:
        made.append(len(self._sizes))
        if len(self._sizes) > 2:
            raise torch.OutOfMemoryError
        return updates(self)

    monkeypatch.setattr(together._Batch, "updates", full)
    assert_alike(compared(digits("tiny"), phones_of(digits("tiny"), (20,) * 5), lr=0.02))
    assert made == [5, 2, 3, 1, 2]


def test_one_phone_that_does_not_fit_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(together._Batch, "updates", full)
    problem = digits("tiny")
    start = np.zeros(layout(build(problem, 0)).size, np.float32)
    with pytest.raises(torch.OutOfMemoryError):
        train_as_one(phones_of(problem), [start] * 4, Training(lr=0.05), [RoundKey(3, 2, i) for i in range(4)])


def test_nobody_is_no_batch() -> None:
    assert train_as_one([], [], Training(), []) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize("model", ["lite", "tiny", "2nn", "mlp", "cnn"])
def test_phones_on_a_gpu_train_as_one_batch_as_each_on_the_cpu(model: str) -> None:
    problem = digits(model)
    start = np.concatenate([each.detach().numpy().ravel() for each in build(problem, 0).parameters()])
    keys, training = [RoundKey(3, 2, index) for index in range(len(SIZES))], Training(lr=0.05)
    there = train_as_one(phones_of(problem, device="cuda"), [start] * len(SIZES), training, keys)
    again = train_as_one(phones_of(problem, device="cuda"), [start] * len(SIZES), training, keys)
    space = Pipeline.parse("float32").space(layout(build(problem, 0)), keys[0])
    for trainer, key, update, same in zip(phones_of(problem), keys, there, again, strict=True):
        alone = trainer.train(start, training, key, space)
        assert alone is not None and update is not None and same is not None
        assert np.abs(alone.coordinates - update.coordinates).max() < 1e-3
        assert same.coordinates.tobytes() == update.coordinates.tobytes()
