"""Worker processes that train for an emulator of phones: started, given jobs, and started again where one dies."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import Trained
from featherfed.edge_client.training_host import HostPlan
from featherfed.edge_client.training_process import KEPT_WEIGHTS
from featherfed.problem import Place
from featherfed.wire.messages import Task, Welcome

F32 = npt.NDArray[np.float32]
TRAININGS_AHEAD, PARTS_AHEAD = 2, 4
"""So many trainings, or parts of an evaluation, a worker has in hand at most: it is to have its next job already when
it has done one, and who gives it may be in the middle of a training of its own, which takes as long as several parts.
"""
MOST_DEATHS = 3
"""A place in the crew whose processes die so often, one after the other, without an answer stays empty."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One phone's training."""

    welcome: Welcome
    weights: F32
    task: Task
    residual: F32 | None


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """The batches from `first` to before `end` of the test set."""

    place: Place
    weights: F32
    first: int
    end: int


Job = TrainJob | EvaluateJob
Result = Trained | list[tuple[float, ...]] | None


class Crew(Protocol):
    """Others who work on jobs, each at any place and in any order."""

    fault: str
    """Why none can work on this run, or nothing."""

    @property
    def size(self) -> int:
        """How many jobs are worked on at once."""

    def room(self, kind: type[Job], waiting: int) -> int:
        """Return how many more jobs of a kind to give now, where so many of it wait."""

    def take(self, jobs: Mapping[int, Job]) -> None:
        """Take jobs of one kind, each by a number of its own; parts are of one evaluation."""

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        """Return jobs that are done, by their numbers; None for one that is to be done elsewhere.

        `block` waits for news, where there can be any; it may be other news than an answer.
        """

    def close(self) -> None:
        """End all that works."""


def burden(jobs: Iterable[Job]) -> tuple[int, int]:
    """Return what to compare by who has least to do: trainings, then all jobs."""
    kinds = [type(job) for job in jobs]
    return kinds.count(TrainJob), len(kinds)


def room_of(kind: type[Job], waiting: int, in_hand: Sequence[Sequence[Job]]) -> int:
    """Return how many more jobs of a kind to give to workers that have these `in_hand`, where so many wait.

    One to each that has none, and up to `TRAININGS_AHEAD` or `PARTS_AHEAD` where there is enough for all. Parts fill
    what trainings leave: a training is given whatever parts are in hand, and no part to who has its next training.
    """
    burdens = [burden(jobs) for jobs in in_hand]
    if kind is TrainJob:
        has = [trainings for trainings, _ in burdens]
    else:
        has = [PARTS_AHEAD if trainings == TRAININGS_AHEAD else jobs for trainings, jobs in burdens]
    ahead = TRAININGS_AHEAD if kind is TrainJob else PARTS_AHEAD
    depth = ahead if waiting > ahead * len(in_hand) else 1
    return sum(max(0, depth - count) for count in has)


@dataclass(eq=False)
class _Member:
    process: "subprocess.Popen[bytes]"
    connection: Connection
    ready: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)
    weights: list[int] = field(default_factory=list)
    deaths: int = 0


class TrainingProcesses:
    """A crew of processes on this machine."""

    def __init__(self, size: int, plan: HostPlan) -> None:
        self.size = size
        self.fault = ""
        """Why no process can work on this run, as the end of a sentence."""
        self._plan = plan
        self._vectors: list[tuple[int, F32]] = []
        self._count = 0
        self._members: list[_Member] = []
        try:
            for _ in range(size):
                self._members.append(self._started())
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes that live."""
        return [member.process.pid for member in self._members]

    @property
    def busy(self) -> bool:
        """Whether one of them has a job."""
        return any(member.jobs for member in self._members)

    def _started(self) -> _Member:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "featherfed.edge_client.training_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _with_ours(os.environ.get("PYTHONPATH", ""))},
            )
        member = _Member(process, Connection(ours.detach()))
        self._send(member, self._plan)
        return member

    def room(self, kind: type[Job], waiting: int) -> int:
        """Return as `room_of` does, of the processes that are ready."""
        return room_of(kind, waiting, [list(member.jobs.values()) for member in self._members if member.ready])

    def take(self, jobs: Mapping[int, Job]) -> None:
        """Send each job to whoever has least to do."""
        for number, job in jobs.items():
            self._give(number, job)

    def _give(self, number: int, job: Job) -> None:
        member = min((each for each in self._members if each.ready), key=lambda each: burden(each.jobs.values()))
        version = self._version(job.weights)
        if version not in member.weights:
            self._send(member, ("weights", version, job.weights))
            member.weights = [*member.weights, version][-KEPT_WEIGHTS:]
        member.jobs[number] = job
        if isinstance(job, TrainJob):
            self._send(member, ("train", number, job.welcome, version, job.task, job.residual))
        else:
            self._send(member, ("evaluate", number, job.place, version, job.first, job.end))

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        """Read what has come; a process that died answers None for all that it had, and another takes its place."""
        answers: list[tuple[int, Result]] = []
        block = block and (self.busy or not all(member.ready for member in self._members))
        while readable := self._readable(block=block):
            for member in readable:
                answers += self._heard(member)
            block = False
        return answers

    def _readable(self, *, block: bool) -> list[_Member]:
        connections = {member.connection: member for member in self._members}
        if not connections:
            return []
        readable: Sequence[Any] = wait(list(connections), None if block else 0)
        return [connections[each] for each in readable]

    def close(self) -> None:
        """End all processes, and wait for them: none is left, not as a zombie either."""
        for member in self._members:
            member.connection.close()
            member.process.kill()
        for member in self._members:
            member.process.wait()
        self._members.clear()

    def _heard(self, member: _Member) -> list[tuple[int, Result]]:
        try:
            said = member.connection.recv()
        except (EOFError, OSError):
            return self._replace(member)
        if not member.ready:
            if said is None:
                member.ready = True
                return []
            # It would be the same for any other.
            self.fault = said
            self.close()
            return []
        number, result = said
        del member.jobs[number]
        member.deaths = 0
        return [(number, result)]

    def _replace(self, member: _Member) -> list[tuple[int, Result]]:
        """Put a new process in the place of one that died; return its jobs, which are to be done elsewhere."""
        member.connection.close()
        member.process.kill()
        member.process.wait()
        self._members.remove(member)
        if member.deaths + 1 < MOST_DEATHS:
            successor = self._started()
            successor.deaths = member.deaths + 1
            self._members.append(successor)
        return [(number, None) for number in member.jobs]

    def _version(self, weights: F32) -> int:
        for version, known in self._vectors:
            if known is weights:
                return version
        self._count += 1
        self._vectors = [*self._vectors, (self._count, weights)][-KEPT_WEIGHTS:]
        return self._count

    def _send(self, member: _Member, message: Any) -> None:
        # One that has died is found where answers are read.
        with contextlib.suppress(OSError):
            member.connection.send(message)


def _with_ours(path: str) -> str:
    """Return a PYTHONPATH that finds this very package first."""
    return os.pathsep.join(filter(None, (str(Path(__file__).absolute().parent.parent.parent), path)))
