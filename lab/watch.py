"""Looking at processes from outside while they work: their highest memory, and their processor time."""

import threading
import time
from collections.abc import Callable

from lab.memory import cpu_s, proportional_bytes, tree

LOOK_S = 0.2
"""A look takes some milliseconds of a core, which is another one's while processes are watched."""
LOOKS_A_SIZE = 2
"""Memory is looked at less often: the kernel walks all pages to tell."""


class Watch:
    """Looks at some processes and their children until it is stopped: their highest memory, and their CPU time."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids, self._over = pids, threading.Event()
        self.bytes = 0
        self._seen_s: list[float] = []
        self._cpu_s: list[float] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            members = list({member for pid in self._pids() for member in tree(pid)})
            # A process that has ended takes its time away with it.
            self._cpu_s.append(max(cpu_s(members), *self._cpu_s[-1:], 0.0))
            self._seen_s.append(time.time())
            if len(self._seen_s) % LOOKS_A_SIZE == 1:
                self.bytes = max(self.bytes, proportional_bytes(members))

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def cpu_s(self, begin_s: float, end_s: float) -> float:
        """Return the processor time between two moments, straight lines between the looks."""
        import numpy as np

        begin, end = np.interp([begin_s, end_s], self._seen_s, self._cpu_s)
        return float(end - begin)
