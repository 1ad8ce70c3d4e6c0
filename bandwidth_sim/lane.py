"""A `Link` on a clock: who waits for room, in turn, and what has passed."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from bandwidth_sim.link import Link, LinkSpec


@dataclass(slots=True)
class Counters:
    """What one direction has carried: payload bytes accepted and delivered, pieces, and the delivery error."""

    accepted_bytes: int = 0
    delivered_bytes: int = 0
    pieces: int = 0
    worst_late_s: float = 0.0


class Lane:
    """One direction of one phone's link, shared by all of its connections in the order in which they ask."""

    def __init__(self, spec: LinkSpec, seed: int, clock: Callable[[], float]) -> None:
        self.link = Link(spec, seed)
        self.counters = Counters()
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None

    def change(self, spec: LinkSpec) -> None:
        """Use other settings from now on; who waits for room asks again."""
        self.link.change(spec, self._clock())
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def put(self, num_bytes: int) -> float:
        """Wait for room, put so many bytes on the link, and return when they arrive on the lane's clock."""
        asked_at_s = self._clock()
        async with self._turn:
            while (room_at_s := self.link.room_at(asked_at_s)) > self._clock():
                await self._pause(room_at_s)
            # The deadline counts, not when the loop woke up: lateness must not add up to a lower rate.
            passage = self.link.send(max(asked_at_s, room_at_s), num_bytes)
        self.counters.accepted_bytes += num_bytes
        self.counters.pieces += 1
        return passage.arrives_at_s

    async def _pause(self, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(until_s - self._clock(), self._wake) if math.isfinite(until_s) else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def until(self, at_s: float) -> None:
        """Sleep until a time on the lane's clock."""
        wait_s = at_s - self._clock()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def delivered(self, num_bytes: int, due_at_s: float) -> None:
        """Count a piece that has been handed on, due then."""
        self.counters.delivered_bytes += num_bytes
        self.counters.worst_late_s = max(self.counters.worst_late_s, self._clock() - due_at_s)
