"""A run served in the test's own process, on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


class Recorder:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.events.append((name, given))

    def told(self, name: str) -> list[tuple[Any, ...]]:
        return [given for kind, given in self.events if kind == name]


@dataclass
class Served:
    """A run that is being served in this process; `ended` is the task whose result is `Service.run`'s."""

    address: str
    folder: Any
    service: Any
    store: Any
    aggregator: Any
    ended: asyncio.Task[str | None]
    watcher: Recorder = field(default_factory=Recorder)

    def report(self) -> dict[str, Any]:
        from featherfed.server.storage.report import make_report
        from featherfed.server.storage.run_folder import existing

        run, config = existing(self.folder.path)
        content: dict[str, Any] = make_report(run, config, self.store).content
        return content


@contextlib.asynccontextmanager
async def serving(
    runs: Path,
    *,
    name: str = "run",
    run_id: str | None = None,
    resume: bool = False,
    port: int = 0,
    entrance: dict[str, Any] | None = None,
    kept_in: str | None = None,
    disk: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    from featherfed.server.config import config_from
    from featherfed.server.door.entrance import Entrance, EntranceOptions
    from featherfed.server.model.aggregation import Aggregator
    from featherfed.server.rounds import resume_point
    from featherfed.server.service import Service
    from featherfed.server.storage.run_folder import create, existing
    from featherfed.server.storage.store import Store

    if resume:
        folder, config = existing(runs / name)
    else:
        defaults = {"problem": "digits", "phones": 2, "rounds": 1, "heartbeat": 5.0}
        defaults |= {"uplink": "float32", "downlink": "float32"}
        merged = {**defaults, **settings}
        config = config_from({"cohort": merged["phones"], **merged})
        folder = create(runs, name, config, store=kept_in)
    aggregator = Aggregator(config, None)
    store = Store(folder.database, **(disk or {}))
    if resume:
        start = resume_point.resume(config, store, folder, aggregator)
    else:
        start = resume_point.begin(config, store, aggregator)
    if run_id is not None:
        start = replace(start, run=run_id)
    watcher = Recorder()
    service = Service(config, folder, aggregator, store, start, watcher)
    options = EntranceOptions(**{"host": "127.0.0.1", "port": port, **(entrance or {})})
    ended = asyncio.create_task(service.run(Entrance(options, runs, config.phones)))
    try:
        while not watcher.told("listening"):
            if ended.done():
                await ended
            await asyncio.sleep(0.001)
        yield Served(watcher.told("listening")[0][0], folder, service, store, aggregator, ended, watcher)
    finally:
        if not ended.done():
            service.stop()
            await asyncio.wait({ended})
        store.close()
