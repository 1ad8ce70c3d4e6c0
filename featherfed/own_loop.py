"""Blocking work that runs an event loop of its own, also where one is running already, as in a notebook."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Ends work from another thread, by the way that the work has named; also where it names it later."""

    def __init__(self) -> None:
        self._ways: list[Callable[[], object]] = []
        self._wanted = False

    def by(self, way: Callable[[], object]) -> None:
        """Name how the work ends."""
        self._ways.append(way)
        if self._wanted:
            way()

    def __call__(self) -> None:
        """End the work."""
        self._wanted = True
        for way in self._ways:
            way()


def apart(work: Callable[[], T], stop: Stop) -> T:
    """Return what `work()` returns: called here, or in a thread of its own where this one is running a loop.

    That loop stands still meanwhile. Ctrl-C calls `stop()`, and is raised again when the work has ended.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    outcome: list[T] = []
    failure: list[BaseException] = []
    done = threading.Event()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append(context.run(work))
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="featherfed")
    thread.start()
    try:
        # Not join(): where Ctrl-C breaks it off, Python 3.11 takes the thread for ended.
        done.wait()
    except KeyboardInterrupt:
        stop()
        done.wait()
        raise
    finally:
        if done.is_set():
            thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
