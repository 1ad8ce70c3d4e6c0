"""The trainings of a simulated run side by side: the virtual clock waits for them, and the run is the same to the bit.

::

    a phone trains ─► asked, in order ─► whoever is free: a crew's processes, or this one
                                             │
    nothing else can happen at this moment ─► the first of the asked is waited for, and its phone goes on

A training's update is a function of what the phone holds and was told, so it does not matter who makes it and when. Its
phone goes on when nothing else is ready at this moment of the virtual clock, one phone at a time in the order in which
they asked: with any number of workers, and with none.

**Ahead of the clock.** Phones on different links come to train at different moments. The first of a round's cohort that
does shows what the others will be asked; whoever is free trains for them ahead. What a phone then asks is compared with
what was trained for it, and where it differs it is trained again.

**Evaluations** come after all that. A version's begins when its round is over, in parts that a worker gets where there
is no training for it: while this process alone takes updates into the sum, or the last trainings of a round end. What
is left of it when the next round closes is done then, by all.

**As one batch.** On a GPU there are no workers, and phones that wait at one moment train as one batch
(`featherfed/learning/together.py`). Which they are the virtual clock says alone.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featherfed.edge_client.learner import Learner, SgdLearner, Trained
from featherfed.edge_client.leaving import LeavingLearner, PhoneLeftError
from featherfed.edge_client.training_crew import Crew, EvaluateJob, Job, TrainJob
from featherfed.edge_client.training_together import Worth, train_together
from featherfed.problem import Place
from featherfed.server.model.evaluation_work import UnderWay
from featherfed.wire.messages import NOTHING, Task

if TYPE_CHECKING:
    from featherfed.learning.evaluation import Evaluation, Evaluator

F32 = npt.NDArray[np.float32]
PATIENCE_S = 2.0
"""Who asked for no workers gets them once so much has been trained without: a process takes as long to come."""
AHEAD_BYTES = 256e6
"""So much of what was trained ahead is kept at most."""
PARTS = 10
"""An evaluation is cut into so many parts a worker: who is slower does fewer."""
LOOK_S = 0.005
"""How often this process looks for what others have done of an evaluation, while it has other things to do."""
LEAST_BATCHES = 10
"""Of a smaller test set than so many batches a worker each would take longer to hear of the model."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a phone is asked: its learner has its shard and its examples."""

    learner: SgdLearner
    weights: F32
    task: Task
    residual: F32 | None

    def same(self, other: "Asked") -> bool:
        """Whether the same update comes of it: vectors that are shared are compared by what they are."""
        mine, theirs = (self.learner, self.weights, self.residual), (other.learner, other.weights, other.residual)
        return all(one is another for one, another in zip(mine, theirs, strict=True)) and self.task == other.task


Ahead = Callable[[Asked], Iterable[Asked]]
"""Names what other phones of a cohort will be asked, told by what one of them was."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How many train at once, and how they are had; this process is one of them if it `trains_here`.

    `start` gets so many others, or None where nobody can help. Without `at_once` they come when they pay.
    """

    size: int = 1
    start: Callable[[int], Crew | None] = lambda size: None
    at_once: bool = True
    trains_here: bool = True
    together: Worth | None = None
    """Which phones that train at one moment in this process train as one batch; None: none ever."""
    fault: str = ""
    """Why there are none, though they were asked for."""


@dataclass(eq=False, slots=True)
class _Training:
    asked: Asked
    stopped: Callable[[], bool] = lambda: False
    future: "asyncio.Future[Trained | None] | None" = None
    taken: bool = False
    alone: bool = False
    """Whether no worker could do it, and no batch: this process does, by itself."""
    done: bool = False
    result: Trained | None = None
    error: Exception | None = None

    @property
    def job(self) -> TrainJob:
        asked = self.asked
        return TrainJob(asked.learner.welcome, asked.weights, asked.task, asked.residual)

    @property
    def num_bytes(self) -> int:
        if self.result is None:
            return 0
        arrays = (self.result.residual, self.result.coordinates)
        return len(self.result.payload) + sum(each.nbytes for each in arrays if each is not None)


@dataclass(eq=False, slots=True)
class _Part:
    """Some batches of an evaluation."""

    job: EvaluateJob
    taken: bool = False
    alone: bool = False
    done: bool = False
    rows: list[tuple[float, ...]] | None = None


@dataclass(eq=False, slots=True)
class _Evaluating:
    """An evaluation under way; whole where it has no parts."""

    evaluator: "Evaluator"
    place: Place
    weights: F32
    future: "asyncio.Future[Evaluation]"
    parts: list[_Part]
    failed: bool = False
    """Whether this process could not do a part."""

    @property
    def left(self) -> list[_Part]:
        """The parts that nobody has in hand."""
        return [] if self.failed else [part for part in self.parts if not (part.taken or part.done)]

    def do(self, part: _Part) -> None:
        """Do a part here."""
        try:
            part.rows = self.evaluator.part(self.weights, part.job.first, part.job.end)
        except Exception:
            # What is wrong is said as it would be of the whole.
            self.failed = True
        part.done = True

    def total(self) -> "Evaluation":
        """Return what `Evaluator.evaluate` does, to the bit, once all parts are done."""
        if self.failed or not self.parts:
            return self.evaluator.evaluate(self.weights)
        return self.evaluator.total([row for part in self.parts for row in part.rows or ()])


class SideBySide:
    """Has the phones of one simulated run trained, which is what its call does (`Trains`), and its model evaluated."""

    def __init__(self, workers: Workers, ahead: Ahead | None = None) -> None:
        self._workers = workers
        self._find_ahead = ahead
        self._crew: Crew | None = None
        self._sought = False
        self._asked: deque[_Training] = deque()
        self._ahead: dict[int, _Training] = {}  # by shard, of the round `_ahead_of`
        self._ahead_of = NOTHING
        self._evaluating: _Evaluating | None = None
        self._looked_s = 0.0
        self._under_way: dict[int, _Training | _Part] = {}
        self._count = 0
        self._spent_s = 0.0

    def begin(self) -> None:
        """Start the workers, if they are to be there from the beginning."""
        if self._workers.at_once:
            self._seek()

    @property
    def fault(self) -> str:
        """Why those who were asked for could not work, if they could not."""
        crew = self._crew.fault if self._crew is not None and self._workers.at_once else ""
        return self._workers.fault or crew

    def close(self) -> None:
        """End the workers."""
        if self._crew is not None:
            self._crew.close()

    def __call__(
        self, learner: Learner, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]
    ) -> "asyncio.Future[Trained | None]":
        """Ask for a training."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Trained | None] = loop.create_future()
        try:
            if isinstance(learner, LeavingLearner):
                learner = learner.stays(task)
        except PhoneLeftError as left:
            future.set_exception(left)
            return future
        if not isinstance(learner, SgdLearner):
            # Noise, which takes no longer than to ask for it.
            return loop.run_in_executor(None, learner.train, weights, task, residual, stopped)
        asked = Asked(learner, weights, task, residual)
        training = self._ahead.pop(learner.welcome.shard, None)
        if training is None or not training.asked.same(asked):
            training = _Training(asked)
        training.stopped, training.future = stopped, future
        self._asked.append(training)
        return future

    def at_rest(self) -> bool:
        """Let the phone go on that asked first, now that nothing else is ready; return whether one waited."""
        while self._asked:
            training = self._asked[0]
            assert training.future is not None, "it was asked for"
            if not (training.done or training.future.done() or training.stopped()):
                self._look_ahead(training)
                self._go_on(training)
                continue
            self._asked.popleft()
            if training.future.done():
                continue
            # Whether it was stopped is the phone's to know, and not how far a worker had come.
            if training.stopped():
                training.future.set_result(None)
            elif training.error is not None:
                training.future.set_exception(training.error)
            else:
                training.future.set_result(training.result)
            return True
        self._look_after_parts()
        return False

    def evaluate(self, evaluator: "Evaluator", place: Place, weights: F32) -> UnderWay:
        """Begin to evaluate, in what trainings leave free; there is one evaluation at a time."""
        future: asyncio.Future[Evaluation] = asyncio.get_running_loop().create_future()
        self._evaluating = evaluating = _Evaluating(evaluator, place, weights, future, [])
        self._cut(evaluating)
        self._give()
        return UnderWay(future, lambda: self._end(evaluating))

    def _cut(self, evaluating: _Evaluating) -> None:
        """Cut an evaluation into parts, where there is somebody to share them with."""
        evaluator, crew = evaluating.evaluator, self._crew
        workers = 1 if crew is None else crew.size + self._workers.trains_here
        whole = workers == 1 or evaluator.batches < LEAST_BATCHES * workers or not evaluator.divisible
        if whole or evaluating.parts:
            return
        shares = PARTS * workers
        ends = [evaluator.batches * number // shares for number in range(shares + 1)]
        evaluating.parts = [
            _Part(EvaluateJob(evaluating.place, evaluating.weights, first, end))
            for first, end in itertools.pairwise(ends)
        ]

    def _look_after_parts(self) -> None:
        """Hand out more parts while this process has other things to do."""
        if self._evaluating is not None and time.perf_counter() - self._looked_s > LOOK_S:
            self._hear(block=False)
            self._give()
            self._looked_s = time.perf_counter()

    def _end(self, evaluating: _Evaluating) -> None:
        """Do what is left of an evaluation, with the others, and let go on who waits for it."""
        if self._evaluating is not evaluating:
            return
        self._cut(evaluating)
        while not evaluating.failed and any(not part.done for part in evaluating.parts):
            self._hear(block=False)
            self._give(ending=True)
            left = evaluating.left
            if left and (self._workers.trains_here or left[0].alone):
                evaluating.do(left[0])
            elif not self._hear(block=True) and not self._under_way:
                # Nobody is left who could.
                for part in evaluating.left:
                    evaluating.do(part)
        self._evaluating = None
        try:
            evaluating.future.set_result(evaluating.total())
        except Exception as error:
            evaluating.future.set_exception(error)

    # Who works

    def _seek(self) -> None:
        self._sought = True
        others = self._workers.size - self._workers.trains_here
        if others > 0:
            self._crew = self._workers.start(others)

    def _go_on(self, wanted: _Training) -> None:
        """Come nearer to the training that is wanted: hand out what waits, and work or wait meanwhile."""
        if not self._sought and self._spent_s > PATIENCE_S:
            self._seek()
        self._hear(block=False)
        self._give()
        if wanted.done:
            return
        mine = next((each for each in (*self._asked, *self._worth_ahead()) if not (each.taken or each.done)), None)
        if mine is not None and (self._workers.trains_here or self._crew is None or mine.alone):
            if not self._trained_together():
                self._train(mine)
        elif mine is None and self._workers.trains_here and self._evaluating is not None and self._evaluating.left:
            self._evaluating.do(self._evaluating.left[0])
        elif not self._hear(block=True) and not self._under_way:
            # Nobody is left who could.
            self._train(wanted)

    def _give(self, *, ending: bool = False) -> None:
        """Hand out what waits, as much as the crew takes now: trainings before parts, or behind them if `ending`."""
        trainings = [*self._asked, *self._worth_ahead()]
        parts = [] if self._evaluating is None else self._evaluating.left
        kinds: list[tuple[type[Job], Sequence[_Training | _Part]]] = [(TrainJob, trainings), (EvaluateJob, parts)]
        for kind, jobs in reversed(kinds) if ending else kinds:
            self._hand_out(kind, jobs)

    def _hand_out(self, kind: type[Job], jobs: Sequence[_Training | _Part]) -> None:
        waiting = [job for job in jobs if not (job.taken or job.done or job.alone)]
        if self._crew is None or not waiting:
            return
        given: dict[int, Job] = {}
        for job in waiting[: self._crew.room(kind, len(waiting))]:
            self._count += 1
            self._under_way[self._count] = job
            job.taken = True
            given[self._count] = job.job
        if given:
            self._crew.take(given)

    def _hear(self, *, block: bool) -> bool:
        """Take what the crew has done; return whether there was something."""
        answers = [] if self._crew is None else self._crew.answers(block=block)
        for number, result in answers:
            job = self._under_way.pop(number)
            job.taken = False
            if isinstance(job, _Part) and isinstance(result, list):
                job.rows, job.done = result, True
            elif isinstance(job, _Training) and isinstance(result, Trained):
                job.result, job.done = result, True
            else:
                job.alone = True
        return bool(answers)

    def _trained_together(self) -> bool:
        """Train all who wait as one batch, where there are enough of them; return whether it was tried."""
        waiting = [
            each
            for each in (*self._asked, *self._worth_ahead())
            if not (each.taken or each.done or each.alone or each.stopped())
        ]
        if self._workers.together is None or len(waiting) < 2:
            return False
        asked = [(each.asked.learner, each.asked.weights, each.asked.task, each.asked.residual) for each in waiting]
        results = train_together(asked, self._workers.together)
        for number, each in enumerate(waiting):
            each.result = results.get(number)
            each.done, each.alone = each.result is not None, each.result is None
        return True

    def _train(self, training: _Training) -> None:
        asked, began_s = training.asked, time.perf_counter()
        try:
            training.result = asked.learner.train(asked.weights, asked.task, asked.residual, lambda: False)
        except Exception as error:
            training.error = error
        training.done = True
        self._spent_s += time.perf_counter() - began_s

    def _look_ahead(self, training: _Training) -> None:
        """Note what others of the cohort will be asked, once a round."""
        nobody = self._crew is None and self._workers.together is None
        if nobody or self._find_ahead is None or self._ahead_of == training.asked.task.round:
            return
        self._ahead_of = training.asked.task.round
        here = {each.asked.learner.welcome.shard for each in self._asked}
        self._ahead = {
            asked.learner.welcome.shard: _Training(asked)
            for asked in self._find_ahead(training.asked)
            if asked.learner.welcome.shard not in here
        }

    def _worth_ahead(self) -> list[_Training]:
        waiting = [each for each in self._ahead.values() if not (each.taken or each.done)]
        kept = sum(each.num_bytes for each in self._ahead.values()) if waiting else 0
        return waiting if kept < AHEAD_BYTES else []
