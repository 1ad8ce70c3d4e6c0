"""The run that this process serves: looked at four times a second, and told to every open page."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec.structs import replace

from featherfed.server.dashboard.scene import Scene
from featherfed.server.dashboard.source import NoRunError, RunLine, event, run_line
from featherfed.server.dashboard.timeline import keep, read
from featherfed.server.dashboard.view import Change, RunStatus, Timeline
from featherfed.server.service import Service

TICK_S = 0.25
LOOK_S = 0.05
"""How often the ends of downloads are looked for while there are any."""
ALIVE_S = 2.0
"""A page that hears nothing for three times this says so."""
BEHIND = 8
"""Changes that may wait for a slow page before it is sent the whole again."""


class ServedSockets:
    """The connections of a service, as the scene asks for them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def clock_s(self) -> float:
        """Return the run's clock."""
        return self._service.clock_s()

    def unacknowledged(self, shard: int) -> int:
        """Return the bytes on their way to a phone."""
        phone = self._service.fleet.connections.get(shard)
        return phone.websocket.bytes_waiting if phone else 0

    def frame_began_s(self, shard: int) -> float | None:
        """Return when the first bytes of a phone's message came."""
        phone = self._service.fleet.connections.get(shard)
        if phone is None:
            return None
        # One that is coming now, or else the one that came last.
        began_s = phone.websocket.frame_began_s or phone.frame_began_s
        return None if began_s is None else began_s + self.clock_s() - asyncio.get_running_loop().time()


class LiveRun:
    """One scene and its pages. A page costs one queue: what all are sent is encoded once."""

    def __init__(self, scene: Scene, folder: Path, count: Callable[[], None]) -> None:
        """`count` brings the ledger up to what the sockets have carried."""
        self._scene = scene
        self._folder = folder
        self._count = count
        self._pages: set[asyncio.Queue[bytes | None]] = set()
        self._said_s = 0.0
        self._said: RunStatus | None = None
        self._closing = False
        self._woken = asyncio.Event()
        scene.wake = self._woken.set

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            self._scene.drain()
            if loop.time() >= next_s:
                next_s = loop.time() + TICK_S
                self._tell()
                if closed := self._scene.take_closed():
                    await loop.run_in_executor(None, keep, self._folder, closed)
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await (asyncio.sleep(LOOK_S) if self._scene.drains else self._woken.wait())

    def close(self) -> None:
        """Tell the pages what is left, end their streams, keep the last lanes."""
        self._tell()
        keep(self._folder, self._scene.take_closed())
        self._closing = True
        for page in self._pages:
            page.put_nowait(None)

    def _tell(self) -> None:
        self._count()
        change = self._scene.changes()
        now_s = asyncio.get_running_loop().time()
        standing = replace(change.standing, clock_s=0.0)
        news = standing != self._said or _has_rows(change)
        if not self._pages or not (news or now_s - self._said_s > ALIVE_S):
            return
        self._said, self._said_s = standing, now_s
        data = event(change)
        for page in self._pages:
            if page.qsize() >= BEHIND:
                while not page.empty():
                    page.get_nowait()
                page.put_nowait(event(self._scene.snapshot()))
            else:
                page.put_nowait(data)

    async def runs(self) -> list[RunLine]:
        """Return this run."""
        return [run_line(self._scene.about, self._scene.rounds.values())]

    async def events(self, name: str) -> AsyncIterator[bytes]:
        """Yield the whole, then what changes, until the run is over."""
        self.check(name)
        # What is new goes to those who are here already: the newcomer gets it as part of the whole.
        self._tell()
        page: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._pages.add(page)
        try:
            yield event(self._scene.snapshot())
            while not self._closing or not page.empty():
                data = await page.get()
                if data is None:
                    return
                yield data
        finally:
            self._pages.discard(page)

    async def timeline(self, name: str, round_number: int) -> Timeline | None:
        """Return the lanes of the round under way, or of one that was kept."""
        self.check(name)
        if live := self._scene.timeline(round_number):
            return live
        kept = await asyncio.get_running_loop().run_in_executor(None, read, self._folder, round_number)
        return kept.timeline if kept else None

    def check(self, name: str) -> None:
        """Raise `NoRunError` if this is not the run."""
        if name != self._scene.about.name:
            raise NoRunError(f"there is no run {name!r}; this server runs {self._scene.about.name!r}")

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return len(self._pages)


def _has_rows(change: Change) -> bool:
    lanes = change.timeline.lanes if change.timeline else {}
    return bool(change.rounds or change.fleet or change.phones or change.faults or lanes)
