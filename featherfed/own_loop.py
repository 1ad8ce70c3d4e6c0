"""Blocking work that runs an event loop of its own, also where one is running already, as in a notebook."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def apart(work: Callable[[], T], stop: Callable[[], object]) -> T:
    """Return what `work()` returns: called here, or in a thread of its own where this one is running a loop.

    That loop stands still meanwhile. Ctrl-C calls `stop()`, which must end the work from another thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    outcome: list[T] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append(context.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="featherfed")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        stop()
        thread.join()
        raise
    if failure:
        raise failure[0]
    return outcome[0]
