"""The clock of virtual time: an asyncio event loop that jumps to the next event when nothing is ready.

::

    ready callbacks, until there are none
        │
        └─ then the earliest entry of one heap, keyed (time, kind, order of scheduling):
             kind 0: bytes that arrive (`virtual_network`: a `Link` in each direction)
             kind 1: timers

The clock starts at 0. What is scheduled costs O(log n) and nothing else depends on how many connections are open.
asyncio's own code runs tasks, futures, callbacks and error handlers; the selector and threads are gone, and jobs of
`run_in_executor(None, …)` run inline. What is worked on elsewhere meanwhile comes back by `at_rest`. It knows no
network: `virtual.VirtualLoop` adds one.
"""

import asyncio
import heapq
import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

JobSeconds = Callable[[Callable[..., Any], Any], float]
"""How many virtual seconds a job of an executor takes, told by the function and what it returned."""

ARRIVAL, TIMER = 0, 1
"""What is due at the same time comes in this order: bytes that are there before timers, as a selector does it."""
SHOWN_TASKS, SHOWN_STEPS = 20, 8
SWEEP = 1000
"""Cancelled timers are swept off the heap when they are more than so many and more than half of it."""


class VirtualTimeError(RuntimeError):
    """What cannot be done in virtual time, or has come to a stop there."""


class DeadlockError(VirtualTimeError):
    """Everybody waits and nothing will happen; the sentence names who waits where."""


def at_once(job: Callable[..., Any], result: Any) -> float:
    """Return 0: a job takes no time."""
    return 0.0


class VirtualClock(asyncio.BaseEventLoop):
    """An event loop in virtual time, without a network.

    `job_s(job, result)`: virtual seconds that a job of `run_in_executor` takes; the job itself runs inline. `limit_s`:
    the clock may not pass this.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self, *, job_s: JobSeconds = at_once, limit_s: float = math.inf) -> None:
        super().__init__()
        self._now_s = 0.0
        self._limit_s = limit_s
        self._job_s = job_s
        self._due: list[tuple[float, int, int, asyncio.Handle]] = []
        self._count = 0
        self._cancelled = 0
        self._thread = threading.get_ident()
        self.at_rest: Callable[[], bool] = _nothing
        """Called when nothing is ready, before the clock jumps: work outside of the loop may make something ready.

        It returns whether it did; the clock waits as long as it works.
        """

    # The clock

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a virtual time; what lies in the past is due now, and infinity never."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if when < math.inf:
            timer._scheduled = True  # type: ignore[attr-defined]
            self._push(when, TIMER, timer)
        return timer

    def arrive_at(self, when_s: float, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.Handle:
        """Call back when bytes arrive: before the timers of the same time."""
        handle = asyncio.Handle(callback, args, self)
        self._push(when_s, ARRIVAL, handle)
        return handle

    def _push(self, when_s: float, kind: int, handle: asyncio.Handle) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(when_s, self._now_s), kind, self._count, handle))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]
            self._cancelled += 1
            if self._cancelled > SWEEP and self._cancelled > len(self._due) / 2:
                self._due = [entry for entry in self._due if not entry[3].cancelled()]
                heapq.heapify(self._due)
                self._cancelled = 0

    def _run_once(self) -> None:
        """Run what is ready; if nothing is, jump to the earliest entry and run that."""
        while not self._ready and not self._stopping:
            if not self.at_rest():
                self._jump()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _jump(self) -> None:
        while self._due:
            when_s, kind, _, handle = heapq.heappop(self._due)
            if handle.cancelled():
                self._cancelled -= 1
                continue
            if when_s > self._limit_s:
                raise VirtualTimeError(f"the clock passes its limit of {self._limit_s:g} s: {self._who_waits()}")
            if kind == TIMER:
                handle._scheduled = False  # type: ignore[attr-defined]
            self._now_s = when_s
            self._ready.append(handle)
            return
        raise DeadlockError(f"nothing can happen any more at {self._now_s:g} s: {self._who_waits()}")

    def _who_waits(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: (len(task.get_name()), task.get_name()))
        waiting = [f"{task.get_name()} in {_where(task)}" for task in tasks[:SHOWN_TASKS]]
        if len(tasks) > SHOWN_TASKS:
            waiting.append(f"and {len(tasks) - SHOWN_TASKS} more")
        return f"waiting: {'; '.join(waiting)}" if tasks else "no task is left"

    # Jobs and threads

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a job inline on the loop's next turn; its result comes `job_s` virtual seconds later."""
        if executor is not None:
            raise VirtualTimeError("virtual time has no threads: use run_in_executor(None, …), which runs jobs inline")
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(self._work, future, func, args)
        return future

    def _work(self, future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
        if future.cancelled():
            return
        try:
            result = func(*args)
        except Exception as error:
            future.set_exception(error)
            return
        took_s = self._job_s(func, result)
        if took_s > 0:
            self.call_later(took_s, _settle, future, result)
        else:
            future.set_result(result)

    def set_default_executor(self, executor: Any) -> None:
        """Refuse: there are no threads."""
        raise VirtualTimeError("virtual time has no threads: jobs run inline")

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back soon, from the loop's own thread; another one would make the order of events random."""
        if threading.get_ident() != self._thread:
            raise VirtualTimeError("virtual time has no threads: another thread called into its loop")
        return self.call_soon(callback, *args, context=context)

    def close(self) -> None:
        """Forget all timers and arrivals."""
        super().close()
        self._due.clear()


def _nothing() -> bool:
    return False


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.cancelled():
        future.set_result(result)


def _where(task: asyncio.Task[Any]) -> str:
    """Return the coroutines that a task waits in, the innermost last: `main app.py:12 > Event.wait locks.py:213`."""
    waiting: Any = task.get_coro()
    steps = []
    while waiting is not None:
        frame: FrameType | None = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            steps.append(f"{frame.f_code.co_qualname} {Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return " > ".join(steps[-SHOWN_STEPS:])
