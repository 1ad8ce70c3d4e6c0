"""Training off the event loop: once for each round, stopped at rest, kept in the phone's state."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from featherfed.edge_client.learner import F32, Trained
from featherfed.edge_client.phone_state import PhoneState
from featherfed.edge_client.training_runner import TrainingRunner
from featherfed.errors import DataError
from featherfed.wire.messages import NOTHING, Task, Welcome
from tests.layouts import task, welcome

WELCOME = welcome()
TASK = task(3, "float32", lr=0.05)


class SlowLearner:
    """Trains until it is let go or stopped, and notes how often and whether two ever overlap."""

    examples = 7

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began: list[int] = []
        self.running = threading.Lock()

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        assert self.running.acquire(blocking=False), "two trainings at a time"
        try:
            self.began.append(task.round)
            while not self.go.wait(0.002):
                if stopped():
                    return None
            return Trained(f"round {task.round}".encode(), None, 7, 5, 0.5)
        finally:
            self.running.release()


async def runner(learner: SlowLearner, phone_state: PhoneState, step_s: float = 0.0) -> TrainingRunner:
    made = TrainingRunner(phone_state, lambda welcome: learner, step_s=step_s, say=lambda line: None)
    await made.prepare(WELCOME)
    return made


@pytest.fixture
def phone_state() -> PhoneState:
    phone_state = PhoneState(None)
    phone_state.hold(2, np.zeros(3, np.float32))
    return phone_state


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_update_goes_to_the_pocket(phone_state: PhoneState) -> None:
    learner = SlowLearner()
    learner.go.set()
    update = await (await runner(learner, phone_state)).train(TASK)
    assert update is not None
    assert (update.round_number, update.payload, update.examples) == (3, b"round 3", 7)
    assert phone_state.pending is update


async def test_two_connections_that_ask_for_a_round_share_its_training(phone_state: PhoneState) -> None:
    learner = SlowLearner()
    made = await runner(learner, phone_state)
    first, second = (asyncio.create_task(made.train(TASK)) for _ in range(2))
    await until(lambda: bool(learner.began))
    # The first connection is lost: its training goes on for the second.
    first.cancel()
    learner.go.set()
    update = await asyncio.wait_for(second, 20)
    assert update is not None
    assert learner.began == [3]


async def test_task_of_another_round_stops_the_training_before_it_begins_its_own(phone_state: PhoneState) -> None:
    learner = SlowLearner()
    made = await runner(learner, phone_state)
    old = asyncio.create_task(made.train(TASK))
    await until(lambda: bool(learner.began))
    new = asyncio.create_task(made.train(replace(TASK, round=4)))
    await until(lambda: learner.began == [3, 4])
    assert made.round_number == 4
    learner.go.set()
    update = await asyncio.wait_for(new, 20)
    assert update is not None and update.round_number == 4
    outcome = (await asyncio.gather(old, return_exceptions=True))[0]
    assert outcome is None or isinstance(outcome, asyncio.CancelledError)


async def test_stop_returns_when_the_thread_is_at_rest(phone_state: PhoneState) -> None:
    learner = SlowLearner()
    made = await runner(learner, phone_state)
    training = asyncio.create_task(made.train(TASK))
    await until(lambda: bool(learner.began))
    await made.stop()
    assert not learner.running.locked()
    assert (made.round_number, phone_state.pending) == (NOTHING, None)
    await asyncio.gather(training, return_exceptions=True)
    await made.stop()


async def test_connection_that_ends_while_a_training_is_stopped_leaves_the_next_one_alone(
    phone_state: PhoneState,
) -> None:
    """A step that was begun goes on after whoever stopped it is gone: the next training waits, and is not stopped."""
    step = threading.Event()

    class Stepping(SlowLearner):
        def train(self, *given: Any) -> Trained | None:
            trained = super().train(*given)
            assert trained is not None or step.wait(20)
            return trained

    learner = Stepping()
    made = await runner(learner, phone_state)
    old = asyncio.create_task(made.train(TASK))
    await until(lambda: bool(learner.began))
    lost = asyncio.create_task(made.train(replace(TASK, round=4)))
    await until(lambda: made.round_number == NOTHING)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    again = asyncio.create_task(made.train(replace(TASK, round=4)))
    await asyncio.sleep(0.05)
    assert learner.began == [3]
    step.set()
    await until(lambda: learner.began == [3, 4])
    learner.go.set()
    update = await asyncio.wait_for(again, 20)
    assert update is not None and update.round_number == 4
    await asyncio.gather(old, return_exceptions=True)


async def test_emulated_device_takes_its_time(phone_state: PhoneState) -> None:
    learner = SlowLearner()
    learner.go.set()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await (await runner(learner, phone_state, step_s=0.02)).train(TASK)
    assert loop.time() - began_s >= 5 * 0.02


async def test_data_that_can_not_be_read_is_raised_by_the_first_task(phone_state: PhoneState) -> None:
    def broken(welcome: Welcome) -> SlowLearner:
        raise DataError("no such shard")

    made = TrainingRunner(phone_state, broken, step_s=0.0, say=lambda line: None)
    await made.prepare(WELCOME)
    with pytest.raises(DataError, match="no such shard"):
        await made.train(TASK)


async def test_learner_is_made_once_for_a_run_and_shard(phone_state: PhoneState) -> None:
    made: list[int] = []

    def make(welcome: Welcome) -> SlowLearner:
        made.append(welcome.shard)
        learner = SlowLearner()
        learner.go.set()
        return learner

    shop = TrainingRunner(phone_state, make, step_s=0.0, say=lambda line: None)
    for each in (WELCOME, replace(WELCOME), replace(WELCOME, shard=5)):
        await shop.prepare(each)
        await shop.train(TASK)
    assert made == [2, 5]
