"""Virtual time in which some jobs wait for each other: they run in threads, of which one at a time has its turn."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from featherfed.bandwidth_sim.virtual import VirtualLoop
from featherfed.gateway.aggregation import GatewayAggregator
from featherfed.gateway.upstream import GatewayLearner

PORT_OF: ContextVar[int] = ContextVar("PORT_OF", default=0)
"""Where a server listens that is not told."""
WAITING_JOBS = (GatewayAggregator.close, GatewayLearner.train)


class Job(threading.Thread):
    """A job that may wait; it runs in `go` alone, for which its loop waits."""

    def __init__(self, loop: "TurnsLoop", future: "asyncio.Future[Any]", func: Callable[..., Any], args: Any) -> None:
        super().__init__(daemon=True)
        self.loop, self.future, self.func, self.args = loop, future, func, args
        self.mine, self.theirs = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False

    def run(self) -> None:
        self.mine.acquire()
        try:
            outcome, error = self.func(*self.args), None
        except Exception as failed:
            outcome, error = None, failed
        self.over = True
        if not self.future.done():
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(outcome)
        self.theirs.release()

    def go(self) -> None:
        """Let the job run until it waits or ends; called by the loop."""
        if self.over:
            return
        self.loop.job, before = self, self.loop.job
        self.mine.release()
        self.theirs.acquire()
        self.loop.job = before

    def wait(self) -> None:
        """Give the turn back; called by the job."""
        self.theirs.release()
        self.mine.acquire()


class TurnsLoop(VirtualLoop):
    """A virtual loop with such jobs."""

    job: Job | None = None

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        if getattr(func, "__func__", None) not in WAITING_JOBS:
            return super().run_in_executor(executor, func, *args)
        future = self.create_future()
        job = Job(self, future, func, args)
        job.start()
        self.call_soon(job.go)
        return future

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        # A job has its turn while the loop stands still.
        return self.call_soon(callback, *args, context=context)

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **rest: Any) -> Any:
        return await super().create_server(factory, host, port or PORT_OF.get(), **rest)


class Meeting:
    """A `threading.Condition` of jobs that have turns."""

    def __init__(self, loop: TurnsLoop) -> None:
        self._loop = loop
        self._waiting: list[Job] = []

    def __enter__(self) -> None:
        """One job runs at a time."""

    def __exit__(self, *_: object) -> None:
        """One job runs at a time."""

    def notify_all(self) -> None:
        """Wake who waits, in their turn."""
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._loop.call_soon(job.go)

    def wait(self, timeout: float) -> None:
        """Wait until notified, or for so many virtual seconds."""
        job = self._loop.job
        assert job is not None
        timer = self._loop.call_later(timeout, self._late, job)
        self._waiting.append(job)
        job.wait()
        timer.cancel()

    def _late(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            job.go()

    def wait_for(self, said: Callable[[], bool]) -> None:
        """Wait until something is so."""
        job = self._loop.job
        assert job is not None
        while not said():
            self._waiting.append(job)
            job.wait()
