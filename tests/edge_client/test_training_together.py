"""Which phones of one process train as one batch, and which are left to train by themselves."""

from typing import Any

import numpy as np
import pytest

from featherfed.edge_client.learner import SgdLearner, Trained
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.edge_client.training_together import train_together, worth_a_batch
from featherfed.learning import together
from featherfed.wire.messages import Task
from tests.layouts import LAYOUTS, task, weights_of, welcome

MODEL = "2nn"
WEIGHTS = weights_of(MODEL)
PLAIN = task(1, "float32", lr=0.05)
Asked = tuple[SgdLearner, np.ndarray, Task, np.ndarray | None]


def ever(phones: int, steps: int) -> bool:
    return True


@pytest.fixture(scope="module")
def learners() -> list[SgdLearner]:
    local = LocalProblem(f"digits/{MODEL}", "cpu")
    return [local.learner(welcome(model=MODEL, shard=shard, shards=100), None) for shard in range(4)]


def values(trained: Trained | None) -> np.ndarray:
    assert trained is not None
    return np.frombuffer(trained.payload, "<f4")[: LAYOUTS[MODEL].size]


def test_phones_of_one_process_send_what_each_sends_alone(learners: list[SgdLearner]) -> None:
    results = train_together([(learner, WEIGHTS, PLAIN, None) for learner in learners], ever)
    for learner, beside in zip(learners, (results[number] for number in range(4)), strict=True):
        alone = learner.train(WEIGHTS, PLAIN, None, lambda: False)
        assert alone is not None and beside is not None
        assert np.abs(values(alone) - values(beside)).max() < 1e-5
        assert (alone.examples, alone.steps) == (beside.examples, beside.steps)


def test_a_residual_is_each_phones_own(learners: list[SgdLearner]) -> None:
    told = task(1, "feedback | sign", lr=0.05)
    residuals = [np.full(LAYOUTS[MODEL].size, 0.1 * (number - 1.5), np.float32) for number in range(4)]
    asked = [(learner, WEIGHTS, told, residual) for learner, residual in zip(learners, residuals, strict=True)]
    results = train_together(asked, ever)
    for (learner, weights, _, residual), beside in zip(asked, (results[number] for number in range(4)), strict=True):
        alone = learner.train(weights, told, residual, lambda: False)
        assert alone is not None and beside is not None
        assert alone.residual is not None and beside.residual is not None
        assert np.abs(alone.residual - beside.residual).max() < 1e-3


@pytest.mark.parametrize(
    "alone",
    [task(1, "mask(1/16)", lr=0.05), task(1, "float32", lr=0.1), task(1, "float32", lr=0.05, epochs=2)],
    ids=["in a part of the weights", "another rate", "more epochs"],
)
def test_who_trains_in_another_way_is_left(learners: list[SgdLearner], alone: Task) -> None:
    tasks = [PLAIN, PLAIN, alone, PLAIN]
    asked = [(learner, WEIGHTS, told, None) for learner, told in zip(learners, tasks, strict=True)]
    results = train_together(asked, ever)
    assert sorted(results) == [0, 1, 3] and None not in results.values()


def test_what_fails_at_once_is_left_to_fail_alone(learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(together.Copies, "gradient", fails)
    assert train_together([(learner, WEIGHTS, PLAIN, None) for learner in learners], ever) == dict.fromkeys(range(4))


def test_what_fails_of_one_is_left_to_fail_alone_and_the_others_are_a_batch(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = SgdLearner.encoded

    def fails_for_one(self: SgdLearner, *given: Any) -> Trained:
        if self is learners[1]:
            raise MemoryError
        return encoded(self, *given)

    asked = [(learner, WEIGHTS, PLAIN, None) for learner in learners]
    with monkeypatch.context() as patch:
        patch.setattr(SgdLearner, "encoded", fails_for_one)
        results = train_together(asked, ever)
    assert [number for number, result in results.items() if result is None] == [1] and len(results) == 4
    wrong = task(1, "no such stage", lr=0.05)
    results = train_together([*asked[:3], (learners[3], WEIGHTS, wrong, None)], ever)
    assert sorted(results) == [0, 1, 2] and None not in results.values()


def test_whether_a_batch_is_worth_it_is_asked_of_phones_and_the_steps_of_the_one_with_the_fewest(
    learners: list[SgdLearner],
) -> None:
    seen: list[tuple[int, int]] = []

    def worth(phones: int, steps: int) -> bool:
        seen.append((phones, steps))
        return False

    told = task(1, "float32", lr=0.05, epochs=3)
    assert train_together([(learner, WEIGHTS, told, None) for learner in learners], worth) == {}
    fewest = min(learner.examples for learner in learners)
    assert seen == [(4, 3 * -(-fewest // 10))]


@pytest.mark.parametrize(
    ("phones", "steps", "worth"), [(10, 1, True), (9, 59, False), (2, 60, True), (1, 600, False), (2, 59, False)]
)
def test_two_phones_of_many_steps_or_many_phones_are_a_batch_on_a_gpu(phones: int, steps: int, worth: bool) -> None:
    assert worth_a_batch(phones, steps) == worth
