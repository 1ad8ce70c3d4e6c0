"""The tasks of a run that is being served, and why it ends."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from websockets.exceptions import ConnectionClosed

from featherfed.errors import FeatherfedError, UnexpectedError

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *given: Any) -> T:
    """Return what `work` returns in a thread; a task that is cancelled meanwhile ends when the thread has.

    For what writes to a run's folder: it must not do so any more when the folder is another's.
    """
    working = asyncio.get_running_loop().run_in_executor(None, work, *given)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise


class RunTasks:
    """Tasks that live as long as the run; one that fails ends it.

    `ended` is done with the first outcome: None, the rounds are done; a reason, the run pauses; or an error of ours,
    after which phones may look for the server again.
    """

    def __init__(self) -> None:
        self.ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task, and return it; a connection that ends beneath it is no failure."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ConnectionClosed):
            self.end(error)

    def end(self, outcome: BaseException | str | None) -> None:
        """End the run; what comes after the first outcome changes nothing."""
        if self.ended.done():
            return
        if isinstance(outcome, BaseException):
            self.ended.set_exception(outcome if isinstance(outcome, FeatherfedError) else UnexpectedError(outcome))
        else:
            self.ended.set_result(outcome)

    async def cancel(self) -> None:
        """Cancel what still runs, and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
