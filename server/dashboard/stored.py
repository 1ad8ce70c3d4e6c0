"""Runs that lie in a folder, as the page shows them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from featherfed.errors import ConfigError, FeatherfedError
from featherfed.server.config import RunConfig
from featherfed.server.dashboard.source import NoRunError, RunLine, event, run_line
from featherfed.server.dashboard.timeline import read
from featherfed.server.dashboard.view import (
    About,
    FaultRow,
    FleetRow,
    PhoneRow,
    PhoneState,
    RoundRow,
    RunStatus,
    Snapshot,
    Timeline,
)
from featherfed.server.measures import Measures
from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.report import make_report, measures_in
from featherfed.server.storage.run_folder import RunFolder, existing
from featherfed.server.storage.store import Store

LOOK_S = 2.0
"""Another process may be serving the run: how often its database is looked at."""


def about(folder: RunFolder, config: RunConfig, parameters: int, measures: Measures, *, live: bool) -> About:
    """Return what never changes of a run."""
    return About(
        name=folder.path.name,
        live=live,
        rounds=config.rounds,
        phones=config.phones,
        parameters=parameters,
        settings=config.settings(),
        command=config.command(),
        measures=measures,
    )


def read_snapshot(folder: RunFolder, config: RunConfig, store: Store) -> Snapshot:
    """Read what the disk has of a run; blocks."""
    content = make_report(folder, config, store).content
    rounds = [msgspec.convert(row, RoundRow) for row in content["rounds"]]
    kept = read(folder.path)
    links = kept.links if kept else {}
    lanes = kept.timeline.lanes if kept else {}
    names = store.phones()
    fleet = [FleetRow(shard, name, *links.get(shard, ("", 0))) for shard, name in sorted(names.items())]
    phones = []
    for shard, traffic in sorted(_by_phone(store).items()):
        if shard in names:
            state, since_s = PhoneState.AWAY, 0.0
            if lane := lanes.get(shard):
                since_s, state = lane[-1][0], PhoneState(lane[-1][1])
            phones.append(PhoneRow(shard, state, since_s, 0.0, 0, *traffic))
    stored = store.rounds()
    last = stored[-1] if stored else None
    timeline = kept.timeline if kept else None
    if last is not None and last.state == "open":
        timeline = Timeline(last.round, last.started_s, None, {})
    return Snapshot(
        about(folder, config, content["parameters"], measures_in(content), live=False),
        RunStatus(
            phase="stored",
            reason=None,
            clock_s=float(store.values().get("clock_s", 0.0)),
            round=last.round if last is not None else 0,
            attempt=last.attempt if last is not None else 0,
            cohort=rounds[-1].cohort if rounds else 0,
            accepted=rounds[-1].accepted if rounds else 0,
            target=config.closing_updates_at(last.round if last is not None else 1),
            connected=0,
        ),
        rounds,
        fleet,
        phones,
        [FaultRow(row.at_s, row.round, row.phone, row.code, row.sentence) for row in store.faults()],
        timeline,
    )


def _by_phone(store: Store) -> dict[int, tuple[int, int]]:
    """Return the bytes (up, down) of each phone's sockets, handshakes included."""
    sums = {shard: {"uplink": 0, "downlink": 0} for shard in store.phones()}
    for (_, shard, way), entry in store.traffic().items():
        sums.setdefault(shard, {"uplink": 0, "downlink": 0})[way] += _carried(entry)
    return {shard: (both["uplink"], both["downlink"]) for shard, both in sums.items()}


def _carried(entry: Traffic) -> int:
    return entry.socket + entry.handshake


class StoredRuns:
    """The runs of a folder, or the one run that it is."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` where there is no run."""
        self._path = path
        self._closing = asyncio.Event()
        if not self._folders():
            raise ConfigError(f"{path} holds no run: a run is a folder with config.toml and run.sqlite")

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    def _folders(self) -> dict[str, Path]:
        def is_run(path: Path) -> bool:
            return (path / "config.toml").exists() and (path / "run.sqlite").exists()

        if is_run(self._path):
            return {self._path.resolve().name: self._path}
        if not self._path.is_dir():
            return {}
        return {path.name: path for path in sorted(self._path.iterdir()) if is_run(path)}

    def _folder(self, name: str) -> Path:
        folder = self._folders().get(name)
        if folder is None:
            raise NoRunError(f"there is no run {name!r}")
        return folder

    async def runs(self) -> list[RunLine]:
        """Return all runs that can be read, newest last."""
        return await asyncio.get_running_loop().run_in_executor(None, self._lines)

    def _lines(self) -> list[RunLine]:
        lines = []
        for path in sorted(self._folders().values(), key=lambda path: path.stat().st_mtime):
            try:
                snapshot = self._snapshot(path)
            except FeatherfedError:
                continue
            lines.append(run_line(snapshot.about, snapshot.rounds))
        return lines

    def _snapshot(self, path: Path) -> Snapshot:
        folder, config = existing(path)
        store = Store(folder.database)
        try:
            return read_snapshot(folder, config, store)
        finally:
            store.close()

    def check(self, name: str) -> None:
        """Raise `NoRunError` if there is no such run."""
        self._folder(name)

    async def events(self, name: str) -> AsyncIterator[bytes]:
        """Yield the run, and again when its database has changed."""
        path = self._folder(name)
        loop = asyncio.get_running_loop()
        seen: object = None
        while not self._closing.is_set():
            now = [file.stat().st_mtime_ns for file in path.glob("run.sqlite*") if file.suffix != ".sqlite-shm"]
            if now != seen:
                seen = now
                yield event(await loop.run_in_executor(None, self._snapshot, path))
            else:
                yield event(None)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LOOK_S)

    async def timeline(self, name: str, round_number: int) -> Timeline | None:
        """Return the lanes of a closed round, where they were kept."""
        kept = await asyncio.get_running_loop().run_in_executor(None, read, self._folder(name), round_number)
        return kept.timeline if kept else None
