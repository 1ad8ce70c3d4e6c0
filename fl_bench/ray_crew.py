"""A Ray cluster that trains the phones of one simulated run: actors, one a core, wherever they are.

A version's weights go into the object store once, an actor reads them once, and each update comes back as it would
travel. Ray starts an actor again whose worker or node died, and gives it the training that it had; what fails by itself
is done by the simulation, which says why as it would alone.
"""

import itertools
import pickle
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.training_crew import Job, Result, TrainJob, burden, room_of
from featherfed.edge_client.training_host import HostPlan, TrainingHost
from featherfed.problem import Place
from featherfed.wire.messages import Task, Welcome

F32 = npt.NDArray[np.float32]
RETRIES = 5
KEPT_WEIGHTS = 4
"""Vectors of weights that are kept in the object store, and by each actor."""
PIECE_BYTES = 96_000
"""What a call returns travels with its answer up to 100 KiB; more goes through the object store, for 2 ms of CPU."""
MOST_PIECES = 10
"""An update of 0.8 MB costs two thirds of that in so many, one of 1.6 MB as much."""


class TrainingActor:
    """A `TrainingHost` on a node of the cluster.

    Weights are named by a number of the run's, and come as a reference in a list, which Ray passes on unread: an actor
    asks the object store for those alone that it does not have, be it for the first time or after it was started again.
    """

    def __init__(self, plan: HostPlan) -> None:
        self._host = TrainingHost(plan)
        self._weights: dict[int, F32] = {}

    def train(
        self, number: int, stored: Sequence[Any], welcome: Welcome, task: Task, residual: F32 | None, pieces: int
    ) -> Any:
        """Return what `TrainingHost.train` does, pickled, in so many pieces; one is not in a list."""
        packed = pickle.dumps(self._host.train(welcome, self._those(number, stored), task, residual), protocol=5)
        ends = [len(packed) * each // pieces for each in range(pieces + 1)]
        return [packed[begin:end] for begin, end in itertools.pairwise(ends)] if pieces > 1 else packed

    def evaluate(
        self, number: int, stored: Sequence[Any], place: Place, first: int, end: int
    ) -> list[tuple[float, ...]]:
        """Return what `TrainingHost.evaluate` does."""
        return self._host.evaluate(place, self._those(number, stored), first, end)

    def _those(self, number: int, stored: Sequence[Any]) -> F32:
        if number not in self._weights:
            import ray

            # A copy: torch wants to own what it reads, and the store may let go.
            self._weights[number] = ray.get(stored[0]).copy()
            if len(self._weights) > KEPT_WEIGHTS:
                del self._weights[next(iter(self._weights))]
        return self._weights[number]


class RayCrew:
    """Actors of a cluster that this process is connected to."""

    def __init__(self, ray: Any, size: int, plan: HostPlan) -> None:
        self.size = size
        self.fault = ""
        self._ray = ray
        actor: Any = ray.remote(TrainingActor).options(
            num_cpus=1, max_restarts=-1, max_task_retries=RETRIES, enable_task_events=False
        )
        self._actors = [actor.remote(plan) for _ in range(size)]
        self._in_hand: list[dict[int, Job]] = [{} for _ in range(size)]
        self._under_way: dict[Any, _Call] = {}  # by the reference of the first piece
        self._weights: deque[tuple[int, F32, Any]] = deque(maxlen=KEPT_WEIGHTS)
        self._versions = 0
        self._pieces = 1

    def room(self, kind: type[Job], waiting: int) -> int:
        """Return as `room_of` does, of all actors."""
        return 0 if self.fault else room_of(kind, waiting, [list(jobs.values()) for jobs in self._in_hand])

    def take(self, number: int, job: Job) -> None:
        """Send a job to the actor that has least to do."""
        at = min(range(self.size), key=lambda each: burden(self._in_hand[each].values()))
        actor, (version, weights) = self._actors[at], self._stored(job.weights)
        if isinstance(job, TrainJob):
            results = actor.train.options(num_returns=self._pieces).remote(
                version, [weights], job.welcome, job.task, job.residual, self._pieces
            )
            pieces = results if self._pieces > 1 else [results]
        else:
            pieces = [actor.evaluate.remote(version, [weights], job.place, job.first, job.end)]
        self._in_hand[at][number] = job
        self._under_way[pieces[0]] = _Call(number, at, pieces)

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        """Return what is done; None for what its actor could not do."""
        if not self._under_way:
            return []
        waiting = list(self._under_way)
        if block:
            self._ray.wait(waiting, num_returns=1)
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        answers = []
        for first in done:
            call = self._under_way.pop(first)
            job = self._in_hand[call.at].pop(call.number)
            answers.append((call.number, self._value(call, packed=isinstance(job, TrainJob))))
        return answers

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _value(self, call: "_Call", *, packed: bool) -> Result:
        failures = self._ray.exceptions
        try:
            pieces = self._ray.get(call.pieces)
        except failures.RayActorError as error:
            # It could not begin: no other could.
            self.fault = f"no actor works on the cluster: {' '.join(str(error).split())[-300:]}"
            return None
        except failures.RayError:
            return None
        value: Result = self._unpacked(pieces) if packed else pieces[0]
        return value

    def _unpacked(self, pieces: Sequence[bytes]) -> Any:
        """Return a training's result, and see that the next ones come in as many pieces as it would have."""
        packed = b"".join(pieces)
        needed = -(-len(packed) // PIECE_BYTES)
        self._pieces = needed if needed <= MOST_PIECES else 1
        return pickle.loads(packed)

    def _stored(self, weights: F32) -> tuple[int, Any]:
        for version, known, reference in self._weights:
            if known is weights:
                return version, reference
        self._versions += 1
        reference = self._ray.put(weights)
        self._weights.append((self._versions, weights, reference))
        return self._versions, reference


@dataclass(frozen=True, slots=True)
class _Call:
    """A job that an actor has: its number, the actor's place, and references to the pieces of its result."""

    number: int
    at: int
    pieces: Sequence[Any]
