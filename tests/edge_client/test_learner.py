import math

import msgspec
import numpy as np
import pytest

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.learner import NoiseLearner, SgdLearner
from featherfed.errors import ConfigError
from featherfed.learning.names import LAYOUTS
from featherfed.randomness import RoundKey
from featherfed.wire.messages import Task, Welcome

LAYOUT = LAYOUTS["lite"]
WELCOME = Welcome("ab12", "lite", "digits", "iid", 2, 10, 0, 20.0, 16384)
TASK = Task(3, 2, "rotate | eden(1)", 1, 10, 0.05, 0.0, 0.0, 0.0, 0)
WEIGHTS = np.random.default_rng(0).normal(0, 0.05, LAYOUT.size).astype(np.float32)


@pytest.mark.parametrize(
    "make", [NoiseLearner, lambda welcome: SgdLearner.load(welcome, None, "cpu")], ids=["none", "sgd"]
)
def test_update_decodes_on_the_server_with_the_key_of_its_round_and_shard(make) -> None:
    trained = make(WELCOME).train(WEIGHTS, TASK, None, lambda: False)
    assert trained is not None
    decoded = Pipeline.parse(TASK.uplink).decode(trained.payload, LAYOUT, RoundKey(0, 3, 2))
    assert 0 < np.linalg.norm(decoded) < 100
    again = make(WELCOME).train(WEIGHTS, TASK, None, lambda: False)
    assert again is not None and again.payload == trained.payload


def test_sgd_trains_on_its_own_shard_and_says_how_much() -> None:
    learner = SgdLearner.load(WELCOME, None, "cpu")
    trained = learner.train(WEIGHTS, TASK, None, lambda: False)
    assert trained is not None
    assert (trained.examples, trained.steps) == (learner.examples, math.ceil(learner.examples / 10))
    assert math.isfinite(trained.loss)
    assert SgdLearner.load(WELCOME, None, "cpu").train(WEIGHTS, TASK, None, lambda: True) is None


def test_sgd_learner_does_what_the_task_says_about_moving_images() -> None:
    still, moved = (
        SgdLearner.load(WELCOME, None, "cpu").train(
            WEIGHTS, msgspec.structs.replace(TASK, shift=s), None, lambda: False
        )
        for s in (0, 2)
    )
    assert still is not None and moved is not None
    assert still.payload != moved.payload


def test_pipeline_with_a_memory_gives_the_residual_to_keep() -> None:
    task = Task(1, 0, "feedback | topk(1/400) | ternary | entropy", 1, 10, 0.05, 0.0, 0.0, 0.0, 0)
    trained = NoiseLearner(WELCOME).train(WEIGHTS, task, None, lambda: False)
    assert trained is not None and trained.residual is not None
    assert trained.residual.shape == (LAYOUT.size,)


def test_model_of_a_newer_server_is_refused() -> None:
    with pytest.raises(ConfigError, match="model 'giant' is unknown to this phone"):
        NoiseLearner(Welcome("ab12", "giant", "digits", "iid", 2, 10, 0, 20.0, 16384))
