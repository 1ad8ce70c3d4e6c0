"""Trees of real processes, which run what a user starts, for phones in the test's own process."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featherfed.server.config import config_from
from tests.forked import Forked, zygote

LISTENING = r"^listening on (\S+)"
GATEWAY = r"^gateway {} serves shards \d+ to \d+ at (\S+) \(process (\d+)"
LIMIT_S = 120.0


class Programs:
    """Running `fl-server` commands; each writes to a log of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, Any] = {}
        self.tether = os.pipe()

    def start(self, name: str, *command: str) -> Forked:
        with open(self.folder / f"{name}.log", "w") as log:
            arguments = ["featherfed.commands.server", *command]
            process = Forked(zygote(), zygote().start(arguments, self.tether[0], log.fileno(), log.fileno()))
        self.running[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def said(self, name: str, pattern: str, count: int = 1) -> re.Match[str]:
        """Return the last of so many lines that a program printed."""
        until_s = time.monotonic() + LIMIT_S
        while len(found := list(re.finditer(pattern, self.log(name), re.MULTILINE))) < count:
            assert self.running[name].poll() is None, self.log(name)
            assert time.monotonic() < until_s, self.log(name)
            await asyncio.sleep(0.05)
        return found[count - 1]

    async def ended(self, name: str) -> int:
        until_s = time.monotonic() + LIMIT_S
        while (code := self.running[name].poll()) is None:
            assert time.monotonic() < until_s, self.log(name)
            await asyncio.sleep(0.05)
        return code


@contextmanager
def programs(folder: Path) -> Iterator[Programs]:
    made = Programs(folder)
    try:
        yield made
    finally:
        for process in made.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        for end in made.tether:
            os.close(end)


def flags(settings: dict[str, Any]) -> list[str]:
    return config_from(settings).flags()
