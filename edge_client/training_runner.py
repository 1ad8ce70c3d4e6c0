"""The phone's training, off the event loop: it goes on while connections come and go."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable

from msgspec.structs import replace

from featherfed.edge_client.learner import Learner, Trained
from featherfed.edge_client.leaving import PhoneLeftError
from featherfed.edge_client.phone_state import PendingUpdate, PhoneState
from featherfed.edge_client.training_work import Trains, in_a_thread
from featherfed.initial_weights import digest_of
from featherfed.wire.messages import NOTHING, Task, Welcome


class TrainingRunner:
    """One learner and at most one training at a time; a finished update goes to the phone's state."""

    def __init__(
        self,
        phone_state: PhoneState,
        make_learner: Callable[[Welcome], Learner],
        *,
        step_s: float,
        say: Callable[[str], None],
        trains: Trains = in_a_thread,
    ) -> None:
        """`step_s`: seconds that a training step of the emulated device takes, where that is longer than here."""
        self._trains = trains
        self._phone_state = phone_state
        self._make_learner = make_learner
        self._step_s = step_s
        self._say = say
        self._learner: asyncio.Future[Learner] | None = None
        self._learner_of: Welcome | None = None
        self._training: asyncio.Task[PendingUpdate | None] | None = None
        self._thread: asyncio.Future[Trained | None] | None = None
        self._stop = threading.Event()
        """Whether the training is to stop: each has its own, since who stops one may be gone before it is at rest."""
        self._stopping: asyncio.Task[None] | None = None
        self.round_number = NOTHING
        """The round that is being trained."""

    async def prepare(self, welcome: Welcome) -> asyncio.Future[Learner]:
        """Begin to load what a run and shard need, before the first task: that takes longer than a small round."""
        # The initial weights are said to newcomers alone, and how phones train is said anew with each task, but for the
        # problem's own settings, which come last.
        of = replace(welcome, initial=[], initial_digest=b"", uplink="", training=welcome.training[-1:])
        if self._learner_of != of:
            # What was trained for another run or shard is no answer to this one's tasks.
            await self.stop()
            self._learner_of = of
            self._learner = asyncio.get_running_loop().run_in_executor(None, self._make_learner, welcome)
            self._learner.add_done_callback(self._prepared)
        assert self._learner is not None, "it was made for this welcome"
        return self._learner

    def _prepared(self, learner: asyncio.Future[Learner]) -> None:
        # An error is raised to whoever awaits the learner for its first task.
        if not learner.cancelled() and learner.exception() is None:
            self._say(f"ready with {learner.result().examples} examples")

    async def train(self, task: Task) -> PendingUpdate | None:
        """Return the update for a task, or None if it was stopped; joins a training of the same round."""
        if self._training is None or self.round_number != task.round:
            await self.stop()
            self.round_number, self._thread = task.round, None
            self._training = asyncio.create_task(self._train(task, self._stop.is_set))
            self._training.add_done_callback(_seen)
        try:
            return await asyncio.shield(self._training)
        except PhoneLeftError:
            # When it is back, it begins anew.
            self._training = None
            raise

    async def stop(self) -> None:
        """Stop the training; returns when its thread is at rest, so that another may begin.

        A caller that is cancelled, as by the end of its connection, leaves a training that goes on to stop, and the
        next caller waits for it too.
        """
        training, self._training = self._training, None
        self.round_number = NOTHING
        if training is not None and not training.done():
            self._stop.set()
            self._stop = threading.Event()
            self._stopping = asyncio.create_task(self._bring_to_rest(training))
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def _bring_to_rest(self, training: "asyncio.Task[PendingUpdate | None]") -> None:
        # Looked at here: it may have begun since it was told to stop.
        if self._thread is not None:
            await asyncio.wait({self._thread})
        training.cancel()
        await asyncio.gather(training, return_exceptions=True)

    async def _train(self, task: Task, stopped: Callable[[], bool]) -> PendingUpdate | None:
        loop = asyncio.get_running_loop()
        weights, residual = self._phone_state.weights, self._phone_state.residual
        assert self._learner is not None and weights is not None, "prepared, and the task's version is held"
        learner = await asyncio.shield(self._learner)
        began_s = loop.time()
        thread = self._trains(learner, weights, task, residual, stopped)
        self._thread = thread
        trained = await asyncio.shield(thread)
        if trained is None:
            return None
        await asyncio.sleep(max(0.0, trained.steps * self._step_s - (loop.time() - began_s)))
        size = f", update of {len(trained.payload)} bytes" if trained.payload else ""
        self._say(
            f"round {task.round}: trained {trained.steps} steps in {loop.time() - began_s:.2f} s,"
            f" loss {trained.loss:.4f}{size}"
        )
        update = PendingUpdate(task.round, trained.payload, trained.examples, trained.residual)
        if trained.coordinates is not None:
            digest = await loop.run_in_executor(None, digest_of, weights)
            update = dataclasses.replace(
                update, examples=1, coordinates=trained.coordinates, uplink=trained.uplink, model=digest
            )
        self._phone_state.put_update(update)
        return update


def _seen(training: "asyncio.Task[PendingUpdate | None]") -> None:
    """Take note of an error: whoever waits has it raised, and where a connection has ended meanwhile nobody does."""
    if not training.cancelled():
        training.exception()
