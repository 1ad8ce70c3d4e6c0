"""A Ray cluster that trains the phones of one simulated run: actors, one a core, wherever they are.

A version's weights go into the object store once, an actor reads them once, and each update comes back as it would
travel. Ray starts an actor again whose worker or node died, and gives it the training that it had; what fails by itself
is done by the simulation, which says why as it would alone.
"""

import itertools
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.training_crew import EvaluateJob, Job, Result, TrainJob, burden, room_of
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
"""An update of 0.8 MB costs three fifths of what it does through the object store in so many, one of 1.6 MB as much."""


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
        self, number: int, stored: Sequence[Any], place: Place, spans: Sequence[tuple[int, int]]
    ) -> list[list[tuple[float, ...]]]:
        """Return what `TrainingHost.evaluate` does, for the batches from the first to before the end of each span."""
        weights = self._those(number, stored)
        return [self._host.evaluate(place, weights, first, end) for first, end in spans]

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

    def take(self, jobs: Mapping[int, Job]) -> None:
        """Send each job to the actor that has least to do; parts that one actor gets are one call."""
        parts: dict[int, dict[int, EvaluateJob]] = {}
        for number, job in jobs.items():
            at = min(range(self.size), key=lambda each: burden(self._in_hand[each].values()))
            self._in_hand[at][number] = job
            if isinstance(job, TrainJob):
                self._train(at, number, job)
            else:
                parts.setdefault(at, {})[number] = job
        for at, of_one in parts.items():
            first = next(iter(of_one.values()))
            spans = [(job.first, job.end) for job in of_one.values()]
            version, weights = self._stored(first.weights)
            result = self._actors[at].evaluate.remote(version, [weights], first.place, spans)
            self._under_way[result] = _Call(at, tuple(of_one), [result])

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        """Return what is done; None for what its actor could not do."""
        if not self._under_way:
            return []
        waiting = list(self._under_way)
        if block:
            self._ray.wait(waiting, num_returns=1)
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        answers: list[tuple[int, Result]] = []
        for first in done:
            call = self._under_way.pop(first)
            jobs = [self._in_hand[call.at].pop(number) for number in call.numbers]
            said = self._said(call)
            if said is None:
                answers += [(number, None) for number in call.numbers]
            elif isinstance(jobs[0], TrainJob):
                answers.append((call.numbers[0], self._unpacked(said)))
            else:
                answers += zip(call.numbers, said[0], strict=True)
        return answers

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _train(self, at: int, number: int, job: TrainJob) -> None:
        version, weights = self._stored(job.weights)
        results = (
            self._actors[at]
            .train.options(num_returns=self._pieces)
            .remote(version, [weights], job.welcome, job.task, job.residual, self._pieces)
        )
        pieces = results if self._pieces > 1 else [results]
        self._under_way[pieces[0]] = _Call(at, (number,), pieces)

    def _said(self, call: "_Call") -> list[Any] | None:
        """Return the pieces of what a call returned, or None where it failed."""
        failures = self._ray.exceptions
        try:
            pieces: list[Any] = self._ray.get(call.pieces)
        except failures.RayActorError as error:
            # It could not begin: no other could.
            self.fault = f"no actor works on the cluster: {' '.join(str(error).split())[-300:]}"
            return None
        except failures.RayError:
            return None
        return pieces

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
    """What an actor has to do: the actor's place, the numbers of the jobs, and references to the result's pieces."""

    at: int
    numbers: tuple[int, ...]
    pieces: Sequence[Any]
