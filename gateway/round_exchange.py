"""Where the two sides of a gateway meet: rounds come down from the root, sums go up. All of it waits in threads."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class News:
    """A round of the root's: `weights` is version round - 1, `difference` the last part of the bytes that it came in.

    `initial` are the weights of version 0, where the downlink has phones keep them. Of a run that sums circles there
    are the `steps` of its grid, and which `life` this gateway is in.
    """

    round_number: int
    weights: F32
    initial: F32 | None
    difference: bytes
    steps: bytes = b""
    life: int = 0


class RoundExchange:
    """One round at a time; `heard` is called from another thread for each that the root asks."""

    def __init__(self, heard: Callable[[News], None]) -> None:
        self._heard = heard
        self._condition = threading.Condition()
        self._news: News | None = None
        self._sum: tuple[int, bytes] | None = None
        self._over = False
        self._lost: Exception | None = None

    def ask(self, news: News, stopped: Callable[[], bool]) -> bytes | None:
        """Begin a round; return its sum, or None if `stopped()` became true or all is over."""
        with self._condition:
            self._news = news
            self._condition.notify_all()
        self._heard(news)
        with self._condition:
            while self._sum is None or self._sum[0] != news.round_number:
                if stopped() or self._over:
                    return None
                self._condition.wait(0.1)
            return self._sum[1]

    def give(self, round_number: int, total: bytes) -> News | None:
        """Hand up the sum of a round; return the next one, or None if the root's run is over.

        Raises what was lost of the root: nobody knows then whether it has the sum.
        """
        with self._condition:
            self._sum = (round_number, total)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._over or self._later(round_number))
            if self._later(round_number):
                return self._news
            if self._lost is not None:
                raise self._lost
            return None

    def finish(self, lost: Exception | None = None) -> None:
        """Let everybody go; `lost` says why the root is out of reach, if its run is not over."""
        with self._condition:
            self._over, self._lost = True, lost
            self._condition.notify_all()

    def _later(self, round_number: int) -> bool:
        return self._news is not None and self._news.round_number > round_number
