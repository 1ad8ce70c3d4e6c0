import numpy as np
import pytest
import torch

import featherfed as ff
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError, DivergedError, ProblemError
from featherfed.learning.models import build, layout
from featherfed.learning.own_training import OwnTrainer
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests.own_problems import regression, table

KEY = RoundKey(0, 1, 2)
LAYOUT = layout(build(regression, 0))
START = np.linspace(-1, 1, LAYOUT.size).astype(np.float32)


def trainer(learner: object) -> OwnTrainer:
    problem = ff.Problem(
        regression.model, examples=regression.examples, loss=regression.loss, learner=learner,  # type: ignore[arg-type]
        settings={"step": 0.5}, name="mine",
    )  # fmt: skip
    return OwnTrainer(problem, table(0))


def space(spec: str = "float32"):  # type: ignore[no-untyped-def]
    return Pipeline.parse(spec).space(LAYOUT, KEY)


def test_learner_is_given_weights_examples_settings_and_randomness_of_its_round() -> None:
    def learner(
        weights: np.ndarray, examples: ff.Examples, training: ff.Training, generator: np.random.Generator
    ) -> np.ndarray:
        assert isinstance(examples.inputs, torch.Tensor) and len(examples) == 120
        weights += training.set["step"] * training.epochs + generator.standard_normal(len(weights), dtype=np.float32)
        return weights

    first, again, other = (
        trainer(learner).train(START, Training(epochs=3, set=given), key, space())
        for key, given in ((KEY, {}), (KEY, {"step": 0.5}), (RoundKey(0, 2, 2), {}))
    )
    assert first and again and other
    drawn = KEY.generator("learner").standard_normal(LAYOUT.size, dtype=np.float32)
    assert np.allclose(first.coordinates, 1.5 + drawn, atol=1e-5)
    assert first.coordinates.tobytes() == again.coordinates.tobytes() != other.coordinates.tobytes()
    assert (first.examples, first.steps) == (120, 1)
    assert START[0] == -1.0


@pytest.mark.parametrize(
    ("learner", "error", "words"),
    [
        (lambda w, e, t, g: w[:-1], ProblemError, r"learner .*line \d+\) returns weights of shape \(96,\) for \(97,\)"),
        (lambda w, e, t, g: w * np.nan, DivergedError, "diverged in round 1"),
        (lambda w, e, t, g: 1 / 0, ProblemError, r"training fails in round 1 \([^()]*line \d+\): ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_are_no_new_weights_is_refused(learner: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        trainer(learner).train(START, Training(), KEY, space())


def test_uplink_that_trains_a_subspace_does_not_go_with_a_learner() -> None:
    with pytest.raises(ConfigError, match="problem mine has a learner of its own"):
        trainer(lambda w, e, t, g: w).train(START, Training(), KEY, space("mask(1/4)"))
