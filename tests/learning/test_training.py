import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from featherfed.codec.pipeline import Pipeline
from featherfed.learning.evaluation import Evaluator
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, layout
from featherfed.learning.noise import noise_update
from featherfed.learning.training import LocalUpdate, Trainer
from featherfed.problem import Examples, Place
from featherfed.problems.moves import shifted
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests.layouts import NAMES as MODELS
from tests.layouts import digits, weights_of

KEY = RoundKey(0, 1, 2)
LAYOUT = layout(build(digits(), 0))
IDENTITY = Pipeline.parse("float32").space(LAYOUT, KEY)


@pytest.fixture(scope="module")
def shard() -> Examples:
    return digits().examples(Place(of=3))


@pytest.fixture(scope="module")
def start() -> np.ndarray:
    return weights_of()


def evaluator(examples: Examples) -> Evaluator:
    return Evaluator(digits(), examples, FlatModel(build(digits(), 0)))


def trained(shard: Examples, start: np.ndarray, spec: str = "float32", **settings: Any) -> LocalUpdate:
    update = Trainer(digits(), shard).train(
        start,
        Training(**settings),
        KEY,
        Pipeline.parse(spec).space(LAYOUT, KEY),  # type: ignore[arg-type]
    )
    assert update is not None
    return update


def test_training_lowers_the_loss_on_what_it_saw(shard: Examples, start: np.ndarray) -> None:
    update = trained(shard, start, epochs=5, lr=0.1)
    measure = evaluator(shard)
    before, after = measure.evaluate(start), measure.evaluate(start + update.coordinates)
    assert after.loss < 0.5 * before.loss
    assert update.steps == 5 * -(-len(shard.targets) // 10)
    assert update.examples == len(shard.targets)


def test_same_key_gives_the_same_bits_and_another_does_not(shard: Examples, start: np.ndarray) -> None:
    trainer, settings = Trainer(digits(), shard), Training(lr=0.05, momentum=0.5)
    first, again, other = (trainer.train(start, settings, key, IDENTITY) for key in (KEY, KEY, RoundKey(0, 2, 2)))
    assert first and again and other
    assert first.coordinates.tobytes() == again.coordinates.tobytes()
    assert first.coordinates.tobytes() != other.coordinates.tobytes()


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 0.01}], ids=["plain", "momentum"])
def test_steps_are_those_of_torch_s_own_sgd(
    model_name: str, settings: dict[str, float], shard: Examples, written: str
) -> None:
    """Autograd and `torch.optim.SGD` in double precision: what rounding moves across a ReLU's corner is not theirs."""
    some = Examples(shard.inputs[:194], shard.targets[:194])
    model = build(digits(model_name), 0)
    begin = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    double = model.to(torch.float64)
    optimizer = torch.optim.SGD(double.parameters(), lr=0.05, **settings)  # type: ignore[arg-type]
    order = torch.from_numpy(KEY.generator("shuffle").permutation(len(some.targets)))
    losses = []
    for chosen in torch.split(order, 10):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(double(some.inputs[chosen].double()), some.targets[chosen])
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    expected = np.concatenate([p.detach().numpy().ravel() for p in double.parameters()]) - begin
    space = Pipeline.parse("float32").space(layout(model), KEY)
    update = Trainer(digits(model_name), some).train(begin, Training(lr=0.05, **settings), KEY, space)  # type: ignore[arg-type]
    assert update is not None
    assert np.allclose(update.coordinates, expected, atol=1e-5)
    assert update.loss == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize("model_name", MODELS)
def test_gpu_trains_as_the_cpu_does(model_name: str, shard: Examples) -> None:
    some = Examples(shard.inputs[:100], shard.targets[:100])
    model = build(digits(model_name), 0)
    begin = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    space = Pipeline.parse("float32").space(layout(model), KEY)
    settings = Training(lr=0.05, momentum=0.5)
    updates = [
        Trainer(digits(model_name), some, device).train(begin, settings, KEY, space) for device in ("cpu", "cuda")
    ]
    assert updates[0] and updates[1]
    assert np.allclose(updates[0].coordinates, updates[1].coordinates, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize("model_name", MODELS)
def test_same_key_gives_the_same_bits_on_a_gpu(model_name: str, shard: Examples) -> None:
    model = build(digits(model_name), 0)
    begin = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    space = Pipeline.parse("float32").space(layout(model), KEY)
    settings = Training(lr=0.05, momentum=0.5)
    first, again = (Trainer(digits(model_name), shard, "cuda").train(begin, settings, KEY, space) for _ in range(2))
    assert first and again
    assert first.coordinates.tobytes() == again.coordinates.tobytes()


def test_proximal_term_keeps_the_model_near_its_start(shard: Examples, start: np.ndarray) -> None:
    free, held = (trained(shard, start, epochs=3, lr=0.05, prox_mu=mu) for mu in (0.0, 5.0))
    assert np.linalg.norm(held.coordinates) < 0.7 * np.linalg.norm(free.coordinates)


def test_images_are_moved_each_way_by_up_to_the_shift() -> None:
    image = torch.full((400, 1, 5, 5), -0.5)
    image[:, 0, 2, 2] = 0.5
    move = shifted({"shift": 2})
    assert move is not None and shifted({"shift": 0}) is None
    moved = move(image, np.random.default_rng(0)) + 0.5
    assert moved.shape == image.shape
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(400))
    places = {(row, column) for _, _, row, column in torch.nonzero(moved).tolist()}
    assert places == set(itertools.product(range(5), repeat=2))


def test_moved_images_are_others_in_each_epoch_and_the_same_for_the_same_key(
    shard: Examples, start: np.ndarray
) -> None:
    still, moved, again = (trained(shard, start, epochs=2, lr=0.05, set={"shift": s}) for s in (0, 2, 2))
    assert moved.coordinates.tobytes() == again.coordinates.tobytes()
    assert moved.coordinates.tobytes() != still.coordinates.tobytes()
    assert moved.loss > still.loss


def test_warps_are_others_after_so_many_epochs_and_the_same_for_the_same_key(
    shard: Examples, start: np.ndarray
) -> None:
    still, warped, again, lasting, long = (
        trained(shard, start, epochs=2, lr=0.05, set=settings)
        for settings in (
            {}, {"warp": 1.0}, {"warp": 1.0}, {"warp": 1.0, "warp_epochs": 2}, {"warp": 1.0, "warp_epochs": 3}
        )
    )  # fmt: skip
    assert warped.coordinates.tobytes() == again.coordinates.tobytes()
    assert lasting.coordinates.tobytes() == long.coordinates.tobytes()
    assert len({each.coordinates.tobytes() for each in (still, warped, lasting)}) == 3


def test_change_with_epochs_is_drawn_once_in_so_many_and_shuffled_in_each(start: np.ndarray, shard: Examples) -> None:
    calls: list[torch.Tensor] = []

    class Kept:
        epochs = 2

        def __call__(self, inputs: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
            calls.append(inputs)
            return inputs

    problem = replace(digits(), augment=lambda settings: Kept())
    update = Trainer(problem, shard).train(start, Training(epochs=5, lr=0.05), KEY, IDENTITY)
    assert len(calls) == 3
    assert all(torch.equal(each, shard.inputs) for each in calls)
    plain = Trainer(digits(), shard).train(start, Training(epochs=5, lr=0.05), KEY, IDENTITY)
    # What changes nothing gives the training without it: each epoch has its own order.
    assert update is not None and plain is not None
    assert np.allclose(update.coordinates, plain.coordinates, atol=1e-6)


def test_whole_shard_as_one_batch_is_one_step_an_epoch(shard: Examples, start: np.ndarray) -> None:
    assert trained(shard, start, epochs=3, batch_size=0).steps == 3


@pytest.mark.parametrize("spec", ["mask(1/4)", "lowrank(1/4)", "subspace(1000)"])
def test_structured_update_is_trained_in_its_subspace(spec: str, shard: Examples, start: np.ndarray) -> None:
    space = Pipeline.parse(spec).space(LAYOUT, KEY)
    update = trained(shard, start, spec, epochs=8, lr=0.1)
    assert update.coordinates.shape == (space.size,)
    assert space.size < LAYOUT.size
    measure = evaluator(shard)
    after = measure.evaluate(start + space.expand(update.coordinates))
    assert after.loss < 0.9 * measure.evaluate(start).loss


def test_mask_of_everything_is_plain_training(shard: Examples, start: np.ndarray) -> None:
    # Few steps: rounding is another, and over many a ReLU's corner makes another training of it.
    settings = {"lr": 0.05, "momentum": 0.9, "batch_size": 120}
    plain, masked = (trained(shard, start, spec, **settings) for spec in ("float32", "mask(1)"))
    assert np.allclose(plain.coordinates, masked.coordinates, atol=1e-5)


def test_training_that_is_stopped_gives_nothing(shard: Examples, start: np.ndarray) -> None:
    asked = iter([False, False, True])
    update = Trainer(digits(), shard).train(start, Training(), KEY, IDENTITY, stopped=lambda: next(asked))
    assert update is None
    assert next(asked, None) is None


def test_noise_is_seeded() -> None:
    assert np.array_equal(noise_update(10, KEY), noise_update(10, KEY))
    assert not np.array_equal(noise_update(10, KEY), noise_update(10, RoundKey(0, 2, 2)))


def test_digits_can_be_learned() -> None:
    examples, test = digits().examples(Place()), digits().test_examples(Place())
    update = Trainer(digits(), examples).train(weights_of(), Training(epochs=8, lr=0.05), KEY, IDENTITY)
    assert update is not None and test is not None
    evaluation = evaluator(test).evaluate(weights_of() + update.coordinates)
    assert evaluation.metrics["accuracy"] > 0.95
    assert evaluation.examples == len(test)
    # A share of 359, exactly: not a mean of means.
    assert (evaluation.metrics["accuracy"] * 359).is_integer()
