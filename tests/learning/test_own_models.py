"""Any module of a user's: trained by torch's autograd with the steps of torch's own SGD, or refused with a sentence."""

import numpy as np
import pytest
import torch
from torch import nn

import featherfed as ff
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import DivergedError, ProblemError
from featherfed.learning.evaluation import Evaluator
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, fingerprint, layout, training_mode
from featherfed.learning.training import Trainer
from featherfed.problem import Place, Problem
from featherfed.randomness import RoundKey, derive
from featherfed.training_settings import Training
from tests import own_problems

KEY = RoundKey(0, 1, 2)
ALL = pytest.mark.parametrize("problem", own_problems.ALL, ids=lambda problem: problem.name)


def learned(problem: Problem, seed: int = 0) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in build(problem, seed).parameters() if p.requires_grad])


def evaluator(problem: Problem) -> Evaluator:
    examples = problem.test_examples(Place())
    assert examples is not None
    return Evaluator(problem, examples, FlatModel(build(problem, 0)))


def trained(problem: Problem, key: RoundKey = KEY, spec: str = "float32", **settings: float) -> np.ndarray:
    space = Pipeline.parse(spec).space(layout(build(problem, 0)), key)
    trainer = Trainer(problem, problem.examples(Place(1, 3)))
    update = trainer.train(learned(problem), Training(**settings), key, space)  # type: ignore[arg-type]
    assert update is not None
    return space.expand(update.coordinates) if not space.identity else update.coordinates


@ALL
def test_it_is_learned(problem: Problem) -> None:
    before = evaluator(problem).evaluate(learned(problem))
    after = evaluator(problem).evaluate(learned(problem) + trained(problem, epochs=12, lr=0.1))
    assert after.loss < 0.7 * before.loss
    (name,) = problem.metrics
    better = after.metrics[name] > before.metrics[name]
    assert better == problem.measures[name].higher_is_better


@ALL
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 0.01}], ids=["plain", "momentum"])
def test_steps_are_those_of_torch_s_own_sgd(problem: Problem, settings: dict[str, float]) -> None:
    module, examples = build(problem, 0), problem.examples(Place(1, 3))
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05, **settings)  # type: ignore[arg-type]
    training_mode(module)
    torch.manual_seed(derive(0, 1, 2, "torch") >> 65)
    for chosen in torch.split(torch.from_numpy(KEY.generator("shuffle").permutation(len(examples))), 10):
        optimizer.zero_grad()
        problem.loss(module(*(part[chosen] for part in examples.parts)), examples.targets[chosen]).backward()
        optimizer.step()
    expected = torch.cat([parameter.detach().ravel() for parameter in parameters]).numpy() - learned(problem)
    assert np.allclose(trained(problem, lr=0.05, **settings), expected, atol=1e-6)


@ALL
@pytest.mark.parametrize("spec", ["mask(1/2)", "lowrank(1/2)", "subspace(20)"])
def test_it_is_trained_in_a_subspace_too(problem: Problem, spec: str) -> None:
    before = evaluator(problem).evaluate(learned(problem))
    after = evaluator(problem).evaluate(learned(problem) + trained(problem, spec=spec, epochs=8, lr=0.05))
    assert after.loss < before.loss


def test_dropout_draws_from_the_round_and_the_phone_and_leaves_torch_s_state_alone() -> None:
    torch.manual_seed(1)
    first = trained(own_problems.tokens)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert first.tobytes() == trained(own_problems.tokens).tobytes()
    assert first.tobytes() != trained(own_problems.tokens, RoundKey(0, 1, 3)).tobytes()
    torch.manual_seed(1)
    assert torch.rand(1) == drawn


def test_evaluation_drops_nothing_out() -> None:
    evaluate = evaluator(own_problems.tokens).evaluate
    assert evaluate(learned(own_problems.tokens)) == evaluate(learned(own_problems.tokens))


def test_tied_weights_travel_once_and_stay_tied() -> None:
    names = [tensor.name for tensor in layout(build(own_problems.tokens, 0)).tensors]
    assert names[0] == "embed.weight" and "score.weight" not in names
    flat = FlatModel(build(own_problems.tokens, 0))
    assert flat.module.score.weight is flat.module.embed.weight  # type: ignore[union-attr]


def test_frozen_parameters_and_their_statistics_stay_and_do_not_travel() -> None:
    module = build(own_problems.frozen, 0)
    assert [tensor.name for tensor in layout(module).tensors] == ["head.weight", "head.bias"]
    kept = fingerprint(module)
    assert {tensor.name for tensor, _ in kept.fixed} >= {"body.0.weight", "body.1.running_mean"}
    model = FlatModel(module)
    update = Trainer(own_problems.frozen, own_problems.table(1), model=model).train(
        learned(own_problems.frozen), Training(), KEY, Pipeline.parse("float32").space(kept.layout, KEY)
    )
    assert update is not None and update.coordinates.any()
    assert fingerprint(model.module).fixed == kept.fixed
    # Another seed makes another body: it is what both ends must have alike.
    assert fingerprint(build(own_problems.frozen, 1)).digest != kept.digest


def make(module: nn.Module) -> Problem:
    return ff.Problem(lambda: module, examples=lambda place: own_problems.table(0), loss=own_problems.regression.loss)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), r"layer '1' is BatchNorm1d .* use torch\.nn\.GroupNorm"),
        (nn.InstanceNorm1d(4, affine=True, track_running_stats=True), "InstanceNorm1d with running statistics"),
        (nn.Linear(4, 1).requires_grad_(False), "no parameter that requires a gradient"),
        (nn.Linear(4, 1).double(), r"parameter 'weight' is torch\.float64, and what is learned is torch\.float32"),
        (nn.LazyLinear(4), "has no shape yet"),
        (nn.Linear, r"returns a type, and no torch\.nn\.Module"),
    ],
    ids=["BatchNorm", "InstanceNorm", "frozen", "double", "lazy", "class"],
)
def test_what_cannot_be_learned_is_refused_with_the_line_that_makes_it(module: nn.Module, words: str) -> None:
    with pytest.raises(ProblemError, match=rf"\([^()]*test_own_models\.py, line \d+\).*{words}"):
        build(make(module), 0)


def test_batch_norm_without_running_statistics_is_learned() -> None:
    build(make(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False))), 0)


def test_loss_that_is_no_number_is_told_with_the_rate() -> None:
    with pytest.raises(DivergedError, match=r"diverged in round 1: after 24 steps with learning rate 1e\+06"):
        trained(own_problems.regression, lr=1e6, epochs=2)


def test_fault_in_the_user_s_loss_names_their_line() -> None:
    def broken(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not today")

    problem = ff.Problem(own_problems.regression.model, examples=own_problems.regression.examples, loss=broken)
    words = r"training fails in round 1 \([^()]*test_own_models\.py, line \d+\): RuntimeError: not today"
    with pytest.raises(ProblemError, match=words):
        trained(problem)


def test_ten_million_parameters_need_a_few_models_of_memory() -> None:
    """Weights, gradient, start, difference; torch's own bookkeeping of big tensors shows in `peak`."""
    wide = ff.Problem(
        lambda: nn.Sequential(nn.Linear(1000, 5000), nn.Tanh(), nn.Linear(5000, 1000)),
        examples=lambda place: ff.Examples(torch.zeros(4, 1000), torch.zeros(4, 1000)),
        loss=own_problems.regression.loss,
    )
    model = FlatModel(build(wide, 0))
    assert model.weights.numel() == 10_006_000
    trainer = Trainer(wide, wide.examples(Place()), model=model)
    start = model.weights.numpy().copy()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        space = Pipeline.parse("float32").space(layout(model.module), KEY)
        update = trainer.train(start, Training(batch_size=0), KEY, space)
    assert update is not None
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profiler.key_averages())
    # One gradient as autograd makes it, and the difference; the flat vectors were there before.
    assert allocated < 4 * 4 * model.weights.numel()
