"""What every test may ask for: the data folder, a served run in this process, and one thread of arithmetic."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Before torch or numpy is imported: two test workers with two threads each only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _mnist_folder() -> Path | None:
    named = os.environ.get("FL_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data"
    folder = Path(named).resolve()
    return folder if (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists() else None


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the full MNIST: skips where there is none, fails where CI says that it must be there."""
    folder = _mnist_folder()
    if folder is None:
        if os.environ.get("FEATHERFED_REQUIRE_MNIST"):
            pytest.fail("FEATHERFED_REQUIRE_MNIST is set, but FL_DATA_DIR holds no MNIST")
        pytest.skip("needs the full MNIST: set FL_DATA_DIR to a folder in torchvision's layout")
    return folder


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
        from server.report import make_report
        from server.run_folder import existing

        run, config = existing(self.folder.path)
        content: dict[str, Any] = make_report(run, config, self.store).content
        return content


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Served]]:
    """Serve a run on loopback: `async with serve(phones=2, rounds=1) as served:`; `resume=True` goes on with it.

    `entrance` are more of `EntranceOptions`; everything else is the run's.
    """

    @contextlib.asynccontextmanager
    async def serving(
        *,
        name: str = "run",
        resume: bool = False,
        port: int = 0,
        entrance: dict[str, Any] | None = None,
        **settings: Any,
    ) -> AsyncIterator[Served]:
        from server import standing
        from server.aggregation import Aggregator
        from server.config import config_from
        from server.entrance import Entrance, EntranceOptions
        from server.run_folder import create, existing
        from server.service import Service
        from server.store import Store

        if resume:
            folder, config = existing(tmp_path / name)
        else:
            defaults = {"data": "digits", "phones": 2, "rounds": 1, "heartbeat": 5.0}
            merged = {**defaults, **settings}
            config = config_from({"cohort": merged["phones"], **merged})
            folder = create(tmp_path, name, config)
        aggregator = Aggregator(config, None)
        store = Store(folder.database)
        where = (
            standing.resume(config, store, folder, aggregator)
            if resume
            else standing.begin(config, store, aggregator.parameters)
        )
        watcher = Recorder()
        service = Service(config, folder, aggregator, store, where, watcher)
        options = EntranceOptions(**{"host": "127.0.0.1", "port": port, **(entrance or {})})
        ended = asyncio.create_task(service.run(Entrance(options, tmp_path, config.phones)))
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

    return serving
