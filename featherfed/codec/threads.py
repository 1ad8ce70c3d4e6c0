"""Threads that work on one sum side by side: numpy lets go of Python's lock while it computes, compiled loops too.

jobs ──┬── take(…)  in the thread that calls
├── take(…)  in another one        each job goes to the one that asks next
└── …
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Job = TypeVar("Job")

EACH = 1 << 18
"""Values that a thread should have to decode: what a call has to do is then worth waking for."""


class Threads:
    """`count` threads, of which whoever calls is one; the others wait in between."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._others: ThreadPoolExecutor | None = None

    def share(self, jobs: Iterable[Job], take: Callable[[Iterator[Job]], None], *, most: int) -> None:
        """Call `take` in up to `most` threads at once, and return when all of them have: each job goes to one of them.

        Raises what any of them raised.

        >>> taken = []
        >>> Threads(2).share(range(4), taken.extend, most=2)
        >>> sorted(taken)
        [0, 1, 2, 3]
        """
        waiting = deque(jobs)
        others = min(self.count, most, len(waiting)) - 1
        if others < 1:
            take(_rest(waiting))
            return
        if self._others is None:
            self._others = ThreadPoolExecutor(self.count - 1, thread_name_prefix="decode")
        begun = [self._others.submit(take, _rest(waiting)) for _ in range(others)]
        try:
            take(_rest(waiting))
        finally:
            # Whoever has not begun by now would find nothing left.
            begun = [other for other in begun if not other.cancel()]
            wait(begun)
        for other in begun:
            other.result()


def _rest(waiting: deque[Job]) -> Iterator[Job]:
    """Take one job after the other off a queue that others take from too."""
    while waiting:
        try:
            job = waiting.popleft()
        except IndexError:
            return
        yield job


ALONE = Threads()
"""The thread that calls, and no other."""
