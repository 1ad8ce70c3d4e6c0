"""Waiting for a moment of a server that runs, and holding it where it writes."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

WAIT_S = 30.0


async def until(condition: Callable[[], Any]) -> None:
    """Return once something is so; raises `TimeoutError` after `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.002)


class HeldDisk:
    """For `disk={"injector": …}` of a served run: writes at once, or, while `held`, not before it is `let_go`."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.waits = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, moment: str) -> None:
        if moment == "before" and self.held.is_set():
            self.waits.set()
            assert self.let_go.wait(WAIT_S)
