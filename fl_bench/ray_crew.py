"""A Ray cluster that trains the phones of one simulated run: actors, one a core, wherever they are.

A version's weights go into the object store once, and each update comes back as it would travel. Ray starts an actor
again whose worker or node died, and gives it the training that it had; what fails by itself is done by the simulation,
which says why as it would alone.
"""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.training_crew import Job, Result, TrainJob, burden, room_of
from featherfed.edge_client.training_host import HostPlan, TrainingHost

RETRIES = 5
KEPT_WEIGHTS = 4
"""Vectors of weights that are kept in the object store."""


class RayCrew:
    """Actors of a cluster that this process is connected to."""

    def __init__(self, ray: Any, size: int, plan: HostPlan) -> None:
        self.size = size
        self.fault = ""
        self._ray = ray
        actor: Any = ray.remote(TrainingHost).options(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)
        self._actors = [actor.remote(plan) for _ in range(size)]
        self._in_hand: list[dict[int, Job]] = [{} for _ in range(size)]
        self._under_way: dict[Any, tuple[int, int]] = {}  # by the result's reference: number of the job, of the actor
        self._weights: deque[tuple[npt.NDArray[np.float32], Any]] = deque(maxlen=KEPT_WEIGHTS)

    def room(self, kind: type[Job], waiting: int) -> int:
        """Return as `room_of` does, of all actors."""
        return 0 if self.fault else room_of(kind, waiting, [list(jobs.values()) for jobs in self._in_hand])

    def take(self, number: int, job: Job) -> None:
        """Send a job to the actor that has least to do."""
        at = min(range(self.size), key=lambda each: burden(self._in_hand[each].values()))
        actor, weights = self._actors[at], self._stored(job.weights)
        if isinstance(job, TrainJob):
            result = actor.train.remote(job.welcome, weights, job.task, job.residual)
        else:
            result = actor.evaluate.remote(job.place, weights, job.first, job.end)
        self._in_hand[at][number] = job
        self._under_way[result] = number, at

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        """Return what is done; None for what its actor could not do."""
        if not self._under_way:
            return []
        waiting = list(self._under_way)
        if block:
            self._ray.wait(waiting, num_returns=1)
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        answers = []
        for result in done:
            number, at = self._under_way.pop(result)
            del self._in_hand[at][number]
            answers.append((number, self._value(result)))
        return answers

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _value(self, result: Any) -> Result:
        failures = self._ray.exceptions
        try:
            value: Result = self._ray.get(result)
        except failures.RayActorError as error:
            # It could not begin: no other could.
            self.fault = f"no actor works on the cluster: {' '.join(str(error).split())[-300:]}"
            return None
        except failures.RayError:
            return None
        return value

    def _stored(self, weights: npt.NDArray[np.float32]) -> Any:
        for known, reference in self._weights:
            if known is weights:
                return reference
        reference = self._ray.put(weights)
        self._weights.append((weights, reference))
        return reference
