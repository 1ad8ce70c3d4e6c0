"""Taking turns, one at a time for each key: a lock that is nowhere while nobody has it."""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Who wants a key's turn and finds it taken waits; those who wait get it in their order."""

    def __init__(self) -> None:
        self._taken: dict[K, deque[asyncio.Future[None]] | None] = {}
        """By key who waits for its turn; there is no queue before the first who does."""

    def free(self, key: K) -> bool:
        """Whether nobody has the turn."""
        return key not in self._taken

    def take(self, key: K) -> None:
        """Take a turn that is free; whoever took it gives it back."""
        assert key not in self._taken, "who takes a turn at once has seen that it is free"
        self._taken[key] = None

    def give_back(self, key: K) -> None:
        """Hand the turn to the one that has waited longest, or leave it free."""
        waiting = self._taken[key]
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._taken[key]

    def turn(self, key: K) -> "Turn[K]":
        """Return a context that has the turn."""
        return Turn(self, key)

    async def wait(self, key: K) -> None:
        """Take the turn when it is free."""
        if self.free(key):
            self.take(key)
            return
        waiting = self._taken[key]
        if waiting is None:
            waiting = self._taken[key] = deque()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # It was handed over at that very moment.
                self.give_back(key)
            raise


class Turn(Generic[K]):
    """One turn, taken and given back."""

    __slots__ = ("_key", "_turns")

    def __init__(self, turns: Turns[K], key: K) -> None:
        self._turns, self._key = turns, key

    async def __aenter__(self) -> None:
        await self._turns.wait(self._key)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give_back(self._key)
