"""Phones of one process that wait while it trains are one batch next, and each is told what became of its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from featherfed.edge_client import training_queue
from featherfed.edge_client.learner import Learner, SgdLearner, Trained
from featherfed.edge_client.leaving import LeavingLearner, PhoneLeftError
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.edge_client.training_queue import TrainingQueue
from featherfed.errors import FeatherfedError
from tests.layouts import LAYOUTS, task, weights_of, welcome

MODEL = "2nn"
WEIGHTS = weights_of(MODEL)
PLAIN = task(1, "float32", lr=0.05)


@pytest.fixture(scope="module")
def learners() -> list[SgdLearner]:
    local = LocalProblem(f"digits/{MODEL}", "cpu")
    return [local.learner(welcome(model=MODEL, shard=shard, shards=100), None) for shard in range(5)]


class Busy:
    """A learner that keeps the thread until it is let go."""

    examples = 1

    def __init__(self) -> None:
        self.go = threading.Event()

    def train(self, *given: Any) -> Trained | None:
        assert self.go.wait(60)
        return None


class Quits:
    """A learner whose loss ends the program."""

    examples = 1

    def train(self, *given: Any) -> Trained | None:
        raise SystemExit(3)


class Queue:
    """A queue whose batches are counted, with one thread as in a swarm."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, worth: Callable[[int, int], bool]) -> None:
        self.batches: list[int] = []
        real = training_queue.train_together

        def counted(asked: Any, worth: Any) -> Any:
            self.batches.append(len(asked))
            return real(asked, worth)

        monkeypatch.setattr(training_queue, "train_together", counted)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        self._queue = TrainingQueue(worth)
        self.stopped = False

    def ask(self, learner: Learner, told: Any = PLAIN) -> "asyncio.Future[Trained | None]":
        return self._queue(learner, WEIGHTS, told, None, lambda: self.stopped)


def alike(trained: Trained | None, learner: SgdLearner) -> bool:
    alone = learner.train(WEIGHTS, PLAIN, None, lambda: False)
    assert alone is not None and trained is not None
    values = [np.frombuffer(each.payload, "<f4")[: LAYOUTS[MODEL].size] for each in (alone, trained)]
    return bool(np.abs(values[0] - values[1]).max() < 1e-5) and alone.steps == trained.steps


async def test_who_waits_while_another_trains_is_in_one_batch(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, busy = Queue(monkeypatch, lambda phones, steps: phones > 1), Busy()
    first = queue.ask(busy)
    futures = [queue.ask(learner) for learner in learners]
    busy.go.set()
    assert await first is None
    for learner, future in zip(learners, futures, strict=True):
        assert alike(await future, learner)
    assert queue.batches == [5]


async def test_who_is_worth_no_batch_yet_waits_for_others_while_the_first_is_trained(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, busy, others = Queue(monkeypatch, lambda phones, steps: phones > 3), Busy(), Busy()
    # Two wait, then the second keeps the thread until all others are there.
    futures = [queue.ask(busy), queue.ask(others), queue.ask(learners[0])]
    busy.go.set()
    assert await futures[0] is None
    futures += [queue.ask(learner) for learner in learners[1:]]
    others.go.set()
    made = await asyncio.gather(*futures[2:])
    assert all(alike(trained, learner) for trained, learner in zip(made, learners, strict=True))
    assert queue.batches == [5]


async def test_where_no_batch_is_worth_it_all_are_trained_one_by_one(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, busy = Queue(monkeypatch, lambda phones, steps: False), Busy()
    futures = [queue.ask(busy), *(queue.ask(learner) for learner in learners)]
    busy.go.set()
    made = await asyncio.gather(*futures)
    assert all(alike(trained, learner) for trained, learner in zip(made[1:], learners, strict=True))
    assert queue.batches == [5, 4, 3, 2]


async def test_what_fails_of_one_in_a_batch_costs_the_others_nothing(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = SgdLearner.encoded

    def fails_for_one(self: SgdLearner, *given: Any) -> Trained:
        if self is learners[2]:
            raise MemoryError("no room for it")
        return encoded(self, *given)

    monkeypatch.setattr(SgdLearner, "encoded", fails_for_one)
    queue, busy = Queue(monkeypatch, lambda phones, steps: True), Busy()
    wrong = task(1, "no such stage", lr=0.05)
    futures = [queue.ask(busy), *(queue.ask(learner) for learner in learners[:4]), queue.ask(learners[4], wrong)]
    busy.go.set()
    made = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(each) for each in made[1:]] == [Trained, Trained, MemoryError, Trained, type(made[5])]
    assert isinstance(made[5], FeatherfedError)
    assert queue.batches == [5]


async def test_who_is_stopped_while_waiting_trains_nothing(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, busy = Queue(monkeypatch, lambda phones, steps: True), Busy()
    futures = [queue.ask(busy), *(queue.ask(learner) for learner in learners)]
    queue.stopped = True
    busy.go.set()
    assert await asyncio.gather(*futures) == [None] * 6
    assert queue.batches == []


async def test_a_fault_is_told_to_its_own_phone_and_one_that_leaves_is_told_at_once(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(monkeypatch, lambda phones, steps: True)
    leaving = LeavingLearner(learners[1], welcome(model=MODEL, shard=1, shards=100), dropout=1.0, away_s=1.0)
    quits, left, stays = queue.ask(Quits()), queue.ask(leaving), queue.ask(learners[0])
    with pytest.raises(PhoneLeftError):
        await left
    with pytest.raises(SystemExit):
        await quits
    assert alike(await stays, learners[0])
    # It leaves once a round at most.
    assert alike(await queue.ask(leaving), learners[1])


async def test_a_phone_whose_connection_ended_costs_the_others_nothing(
    learners: list[SgdLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, busy = Queue(monkeypatch, lambda phones, steps: True), Busy()
    futures = [queue.ask(busy), *(queue.ask(learner) for learner in learners)]
    futures[2].cancel()
    busy.go.set()
    made = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(made[2], asyncio.CancelledError)
    assert sum(isinstance(each, Trained) for each in made) == 4
