import math

import numpy as np
import pytest
from msgspec.structs import replace

from featherfed.edge_client.learner import NoiseLearner, SgdLearner
from featherfed.edge_client.local_problem import LocalProblem, problem_named_by
from featherfed.edge_client.round_settings import RunSettings
from featherfed.errors import ConfigError
from featherfed.randomness import RoundKey
from featherfed.wire.messages import Welcome
from tests.layouts import LAYOUTS, task, welcome


def sgd(welcome: Welcome) -> SgdLearner:
    return LocalProblem(problem_named_by(welcome), "cpu").learner(welcome, None)


LAYOUT = LAYOUTS["lite"]
WELCOME = welcome()
TASK = task(3, "rotate | eden(1)", lr=0.05)
WEIGHTS = np.random.default_rng(0).normal(0, 0.05, LAYOUT.size).astype(np.float32)


@pytest.mark.parametrize("make", [NoiseLearner, sgd], ids=["none", "sgd"])
def test_update_decodes_on_the_server_with_the_key_of_its_round_and_shard(make) -> None:
    trained = make(WELCOME).train(WEIGHTS, TASK, None, lambda: False)
    assert trained is not None
    decoded = RunSettings(WELCOME).in_round(TASK).uplink.decode(trained.payload, LAYOUT, RoundKey(0, 3, 2))
    assert 0 < np.linalg.norm(decoded) < 100
    again = make(WELCOME).train(WEIGHTS, TASK, None, lambda: False)
    assert again is not None and again.payload == trained.payload


def test_sgd_trains_on_its_own_shard_and_says_how_much() -> None:
    learner = sgd(WELCOME)
    trained = learner.train(WEIGHTS, TASK, None, lambda: False)
    assert trained is not None
    assert (trained.examples, trained.steps) == (learner.examples, math.ceil(learner.examples / 10))
    assert math.isfinite(trained.loss)
    assert sgd(WELCOME).train(WEIGHTS, TASK, None, lambda: True) is None


def test_sgd_learner_does_what_the_task_says_about_moving_images() -> None:
    still, moved = (
        sgd(WELCOME).train(WEIGHTS, task(3, "rotate | eden(1)", lr=0.05, set=s), None, lambda: False)
        for s in ({}, {"shift": 2})
    )
    assert still is not None and moved is not None
    assert still.payload != moved.payload


def test_pipeline_with_a_memory_gives_the_residual_to_keep() -> None:
    asked = task(1, "feedback | topk(1/400) | ternary | entropy", lr=0.05)
    trained = NoiseLearner(WELCOME).train(WEIGHTS, asked, None, lambda: False)
    assert trained is not None and trained.residual is not None
    assert trained.residual.shape == (LAYOUT.size,)


@pytest.mark.parametrize("make", [NoiseLearner, sgd], ids=["none", "sgd"])
def test_phone_clips_to_the_norm_that_it_is_told(make) -> None:
    asked = task(3, "float32", lr=0.05)
    free = make(WELCOME).train(WEIGHTS, asked, None, lambda: False)
    bound = make(replace(WELCOME, clip=0.01)).train(WEIGHTS, asked, None, lambda: False)
    assert free is not None and bound is not None
    longer, clipped = (np.frombuffer(each.payload, "<f4").astype(np.float64) for each in (free, bound))
    assert np.linalg.norm(longer) > 0.02
    assert np.allclose(clipped, longer * (0.01 / np.linalg.norm(longer)), atol=1e-8)


def test_problem_of_a_file_is_asked_for_by_name_and_never_imported_from_the_wire() -> None:
    for name in ("mytask:problem", "os:system", "nothing-like-it/lite"):
        with pytest.raises(ConfigError, match=r"whose code does not travel; name your copy of it, like --problem"):
            problem_named_by(welcome(problem=name))
