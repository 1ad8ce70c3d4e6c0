"""Gateways in the test's own process, and phones that answer every task."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from featherfed.gateway.serving import Gateway, Root, gateway_config
from featherfed.server.config import config_from
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.server.storage.run_folder import create, existing
from featherfed.server.storage.store import Store
from featherfed.wire.messages import Accepted, Finish, ModelBegin, Task, WholeModel
from tests.server.peer import Peer, peer
from tests.serving import Recorder

SETTINGS: dict[str, Any] = {
    "problem": "digits", "phones": 6, "cohort": 4, "rounds": 3, "seed": 3, "uplink": "rotate | eden(1)",
    "downlink": "rotate | eden(4)", "heartbeat": 5.0,
}  # fmt: skip


async def play(phone: Peer, shard: int) -> None:
    """Answer every task until the run is over."""
    await phone.join(f"phone-{shard}", shard=shard)
    task: Task | None = None
    left = -1
    while not isinstance(message := await phone.receive(), Finish):
        if isinstance(message, Task):
            task = message
            left = 0 if task.version == phone.held_version else left
        if isinstance(message, WholeModel):
            # One that comes after its task says nothing of what that round changes.
            task, left = task if task is not None and task.version == message.version else message.task(), 0
        left = sum(message.lengths) - len(message.data) if isinstance(message, ModelBegin) else left
        if type(message).__name__ == "ModelChunk":
            left -= len(message.data)  # type: ignore[union-attr]
        if left == 0 and task is not None:
            left, phone.held_version = -1, task.version
            await phone.upload(task.round, phone.update(task), examples=1 + shard)
        if isinstance(message, Accepted) and task is not None and message.round == task.round:
            task = None


async def play_all(addresses: Iterable[tuple[str, int]]) -> None:
    async def one(address: str, shard: int) -> None:
        async with peer(address) as phone:
            await play(phone, shard)

    await asyncio.gather(*(one(*place) for place in addresses))


@contextlib.asynccontextmanager
async def gateway(
    root: str | Root,
    folder: Path,
    index: int,
    of: int,
    *,
    gateways: int = 0,
    entrance: dict[str, Any] | None = None,
    disk: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple["asyncio.Task[str]", Recorder]]:
    """A gateway in this process; leaving it before its end is a kill: nothing is said to anybody.

    `disk` is how its database is opened.
    """
    if folder.exists():
        run, config = existing(folder)
    else:
        config = gateway_config(config_from({**SETTINGS, **settings}), (index, of), gateways=gateways)
        run = create(folder.parent, folder.name, config)
    store, watcher = Store(run.database, **(disk or {})), Recorder()
    options = EntranceOptions(**{"host": "127.0.0.1", "port": 0, **(entrance or {})})
    way = root if isinstance(root, Root) else Root(url=root)
    with Entrance(options, folder.parent, config.phones) as door:
        made = Gateway(config, run, store, watcher, root=way, place=(index, of))  # type: ignore[arg-type]
        serving_it = asyncio.create_task(made.run(door))
        try:
            yield serving_it, watcher
        finally:
            serving_it.cancel()
            await asyncio.gather(serving_it, return_exceptions=True)
            store.close()


async def address(watcher: Recorder, serving_it: "asyncio.Task[str]") -> str:
    while not watcher.told("listening"):
        if serving_it.done():
            await serving_it
        await asyncio.sleep(0.005)
    return str(watcher.told("listening")[0][0])
