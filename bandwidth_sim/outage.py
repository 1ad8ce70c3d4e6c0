"""The on/off process: times in which nothing passes, and how TCP's back-off outlasts them."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from featherfed.bandwidth_sim.errors import LinkConfigError

RTO_RANGE_S = (0.28, 0.315)
"""The first retransmission timeout, drawn for each outage: fitted to the kernel, see docs/LINKS.md."""
MAX_RTO_S = 120.0
"""Linux's TCP_RTO_MAX: the back-off doubles no further."""


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Up and down for exponential times with these means in seconds (Gilbert 1960, Elliott 1963)."""

    mean_up_s: float
    mean_down_s: float

    def __post_init__(self) -> None:
        if not (0 < self.mean_up_s < math.inf and 0 < self.mean_down_s < math.inf):
            raise LinkConfigError(f"mean times must be positive: up {self.mean_up_s} s, down {self.mean_down_s} s")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Written (up_s, down_s) pairs in seconds, repeated for ever."""

    steps: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.steps or any(not (0 <= t < math.inf) for step in self.steps for t in step):
            raise LinkConfigError("a schedule needs finite, non-negative times like 'up 30s, down 5s'")
        if not sum(up for up, _ in self.steps) > 0:
            raise LinkConfigError("a schedule that is never up lets nothing pass: set the rate to 0 instead")


OutageSpec = GilbertElliott | Schedule


@dataclass(frozen=True, slots=True)
class Window:
    """Nothing passes from `down_at_s` to `up_at_s`; `rto_s` is the first retransmission timeout of who waits there."""

    down_at_s: float
    up_at_s: float
    rto_s: float

    def resumes_at(self, waiting_since_s: float) -> float:
        """Return when a stream that wants to send since then passes again: its first retransmission after the end.

        TCP tries again after rto, 2·rto, 4·rto, … and learns of the link's return only by such a try.
        """
        tried_at_s = max(waiting_since_s, self.down_at_s)
        wait_s = self.rto_s
        while tried_at_s < self.up_at_s:
            tried_at_s += wait_s
            wait_s = min(2 * wait_s, MAX_RTO_S)
        return tried_at_s


def windows(spec: OutageSpec | None, seed: int) -> Iterator[Window]:
    """Yield the outages of one phone in order; endless for a process, nothing for None."""
    if spec is None:
        return
    draw = random.Random(f"{seed}/outage")
    steps = itertools.cycle(spec.steps) if isinstance(spec, Schedule) else None
    now_s = 0.0
    while True:
        if steps is not None:
            up_s, down_s = next(steps)
        elif isinstance(spec, GilbertElliott):
            up_s, down_s = draw.expovariate(1 / spec.mean_up_s), draw.expovariate(1 / spec.mean_down_s)
        down_at_s = now_s + up_s
        now_s = down_at_s + down_s
        yield Window(down_at_s, now_s, draw.uniform(*RTO_RANGE_S))


class Outages:
    """The outages of one phone, asked in the order of time."""

    def __init__(self, spec: OutageSpec | None, seed: int) -> None:
        self._windows = windows(spec, seed)
        self._window = next(self._windows, None)

    def up_from(self, now_s: float) -> float:
        """Return `now_s` if the link is up then, else when a stream that starts to wait then passes again."""
        if not math.isfinite(now_s):
            return now_s
        while self._window is not None and self._window.up_at_s <= now_s:
            self._window = next(self._windows, None)
        if self._window is None or now_s < self._window.down_at_s:
            return now_s
        return self.up_from(self._window.resumes_at(now_s))

    def served_at(self, start_s: float, busy_s: float) -> float:
        """Return when `busy_s` seconds of service end that begin at `start_s`, outages and back-off left out."""
        now_s = self.up_from(start_s)
        while self._window is not None and now_s + busy_s > self._window.down_at_s and math.isfinite(busy_s):
            busy_s -= self._window.down_at_s - now_s
            now_s = self.up_from(self._window.down_at_s)
        return now_s + busy_s
