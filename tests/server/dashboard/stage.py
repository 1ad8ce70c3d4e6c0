"""A stage on which a test plays a run for the real page."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from featherfed.by_round import ByRound
from featherfed.server.config import RunConfig
from featherfed.server.dashboard.scene import Scene
from featherfed.server.dashboard.serving import open_page, open_socket
from featherfed.server.dashboard.stored import about
from featherfed.server.dashboard.sums import Sums
from featherfed.server.measures import LOSS, Measure, Measures
from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.spent import Spent
from featherfed.server.watchers.watcher import RoundSummary, Visitor


class StillSockets:
    """Sockets on which nothing is under way, and a clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waiting: dict[int, int] = {}
        self.began_s: dict[int, float] = {}

    def clock_s(self) -> float:
        return self.now_s

    def unacknowledged(self, shard: int) -> int:
        return self.waiting.get(shard, 0)

    def frame_began_s(self, shard: int) -> float | None:
        return self.began_s.get(shard)


ACCURACY = (Measure("accuracy", fraction=True), LOSS)


class Play:
    """A run that a test plays by telling its scene what a server would."""

    def __init__(self, folder: Path, measures: Measures = ACCURACY, **settings: Any) -> None:
        self.config = RunConfig(**{"problem": "digits", "phones": 3, "cohort": 3, "rounds": 4, **settings})
        self.ledger = Ledger()
        self.sockets = StillSockets()
        self.folder = RunFolder(folder)
        self.scene = Scene(
            self.config,
            about(self.folder, self.config, 29322, measures, live=True),
            Sums(self.ledger),
            self.sockets,
            expected_bytes=ByRound(1000),
        )
        self.now_s = 0.0

    def at(self, now_s: float) -> Scene:
        """Set the clock."""
        self.sockets.now_s = now_s
        return self.scene

    def come(self, shard: int, name: str | None = None, link: str = "3g", rate: int = 90_000) -> None:
        self.scene.phone_came(Visitor(shard, name or f"phone-{shard}", link, rate), shard + 1, self.config.phones)

    def carry(self, round_number: int, shard: int, *, up: int = 0, down: int = 0) -> None:
        """Let the ledger count payload that a socket carried."""
        for way, amount in (("uplink", up), ("downlink", down)):
            entry = self.ledger.entry(round_number, shard, way)
            entry.payload += amount
            entry.message += amount
            entry.socket += amount

    def close_round(self, number: int, accuracy: float = 0.9, **more: Any) -> None:
        size = self.config.cohort_size_at(number)
        summary = RoundSummary(
            **{
                "round_number": number, "rounds": self.config.rounds, "cohort": size, "accepted": size, "late": 0,
                "failed": 0, "loss": 0.25, "metrics": {"accuracy": accuracy}, "seconds": 2.0, "spent": Spent(),
                **more,
            }
        )  # fmt: skip
        self.scene.version_published(replace(summary, loss=None, metrics={}))
        self.scene.round_closed(summary)


class Stage:
    """A play whose page is served from a thread's event loop."""

    def __init__(self, play: Play, token: str | None = None) -> None:
        self.play = play
        self.where = open_socket("127.0.0.1:0", token)
        self.url = self.where.url
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        async def serve() -> None:
            async with open_page(self.where, self.play.scene, lambda: None, self.play.folder.path):
                self._ready.set()
                await self._over.wait()

        with contextlib.closing(self._loop):
            self._loop.run_until_complete(serve())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    def act(self, action: Callable[[], object]) -> None:
        """Do something on the loop, and wait until it is done."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (action(), done.set()))
        assert done.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
