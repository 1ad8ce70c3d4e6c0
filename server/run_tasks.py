"""The tasks of a run that is being served, and why it ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from websockets.exceptions import ConnectionClosed

from featherfed.errors import FeatherfedError, UnexpectedError


class RunTasks:
    """Tasks that live as long as the run; one that fails ends it.

    `ended` is done with the first outcome: None, the rounds are done; a reason, the run pauses; or an error of ours,
    after which phones may look for the server again.
    """

    def __init__(self) -> None:
        self.ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task; a connection that ends beneath it is no failure."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

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

    def cancel(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks:
            task.cancel()
