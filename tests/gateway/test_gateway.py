"""Trees of gateways on real sockets: the model of one server, to the bit, also when a gateway is killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from featherfed.errors import LocalError
from featherfed.wire.messages import Accepted, Finish, ModelBegin, Task
from gateway.serving import Gateway, Root, gateway_config, gateway_rules
from server.config import config_from
from server.entrance import Entrance, EntranceOptions
from server.run_folder import create, existing
from server.store import Store
from tests.server.peer import Peer, peer
from tests.serving import Recorder, serving

SETTINGS: dict[str, Any] = {
    "data": "digits", "phones": 6, "cohort": 4, "rounds": 3, "seed": 3, "uplink": "rotate | eden(1)",
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
        left = sum(message.lengths) - len(message.data) if isinstance(message, ModelBegin) else left
        if type(message).__name__ == "ModelChunk":
            left -= len(message.data)  # type: ignore[union-attr]
        if left == 0 and task is not None:
            left = -1
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
    root: str, folder: Path, index: int, of: int, *, gateways: int = 0, **settings: Any
) -> AsyncIterator[tuple["asyncio.Task[str]", Recorder]]:
    """A gateway in this process; leaving it before its end is a kill: nothing is said to anybody."""
    if folder.exists():
        run, config = existing(folder)
    else:
        config = gateway_config(config_from({**SETTINGS, **settings}), (index, of), gateways=gateways)
        run = create(folder.parent, folder.name, config)
    store, watcher = Store(run.database), Recorder()
    with Entrance(EntranceOptions(host="127.0.0.1", port=0), folder.parent, config.phones) as door:
        made = Gateway(config, run, store, watcher, root=Root(url=root), place=(index, of))  # type: ignore[arg-type]
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


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model that one server makes of the run."""

    async def run(folder: Path) -> bytes:
        async with serving(folder, **SETTINGS) as served:
            await play_all((served.address, shard) for shard in range(6))
            assert await served.ended is None
        return (folder / "run" / "model.safetensors").read_bytes()

    return asyncio.run(run(tmp_path_factory.mktemp("one")))


async def test_tree_gives_the_model_of_one_server_bit_for_bit(tmp_path: Path, one_server: bytes) -> None:
    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "g0", 0, 2) as (first, told),
        gateway(root.address, tmp_path / "g1", 1, 2) as (second, told_second),
    ):
        places = [await address(told, first)] * 3 + [await address(told_second, second)] * 3
        await asyncio.wait_for(play_all(zip(places, range(6), strict=True)), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(asyncio.gather(first, second), 30)
        report = root.report()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one_server
    assert [(row["cohort"], row["accepted"]) for row in report["rounds"]] == [(2, 2)] * 3
    asked = [len(cohort) for recorder in (told, told_second) for _, _, cohort in recorder.told("round_opened")]
    assert sum(asked) == 3 * SETTINGS["cohort"]


async def test_killed_gateway_costs_a_reconnect_and_not_a_round(tmp_path: Path, one_server: bytes) -> None:
    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "g1", 1, 2) as (second, told_second),
    ):
        async with gateway(root.address, tmp_path / "g0", 0, 2) as (first, told):
            place = await address(told, first)
            there = await address(told_second, second)
            others = asyncio.create_task(play_all([(there, shard) for shard in (3, 4, 5)]))
            # The first round begins, one phone's update is durable at this gateway, and it is killed.
            async with contextlib.AsyncExitStack() as stack:
                phones = [await stack.enter_async_context(peer(place)) for _ in range(3)]
                for shard, phone in enumerate(phones):
                    await phone.join(f"phone-{shard}", shard=shard)
                while not told.told("round_opened"):
                    await asyncio.sleep(0.005)
                (_, _, cohort) = told.told("round_opened")[0]
                asked = min(cohort)
                task = await phones[asked].task()
                await phones[asked].upload(task.round, phones[asked].update(task), examples=1 + asked)
                await phones[asked].receive_until(Accepted)
        async with gateway(root.address, tmp_path / "g0", 0, 2) as (first, told):
            place = await address(told, first)
            await asyncio.wait_for(asyncio.gather(play_all([(place, shard) for shard in range(3)]), others), 60)
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        report = root.report()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one_server
    assert len(report["rounds"]) == 3


async def test_gateway_that_was_started_for_another_run_says_what_differs(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 1, "uplink": "float32"}) as root,
        gateway(root.address, tmp_path / "a", 0, 1, model="2nn") as (first, _),
    ):
        with pytest.raises(LocalError, match="the root runs with --model lite, this gateway with 2nn"):
            await asyncio.wait_for(first, 30)


def test_gateways_ask_whom_one_server_would_ask() -> None:
    config = config_from({"phones": 103, "cohort": 17, "seed": 5})
    for round_number in range(1, 30):
        assert sum(gateway_rules(config, index, 4).asked(round_number) for index in range(4)) == 17
    assert sum(gateway_rules(config, index, 4).phones for index in range(4)) == 103


def test_phone_of_another_gateway_is_told_so(tmp_path: Path) -> None:
    from server.admission import NoShardError, allot
    from tests.server.peer import hello

    with pytest.raises(NoShardError, match="shard 7 is played at another gateway; this one has 0 to 4"):
        allot(hello("a", shard=7), shards=10, held={}, away=set(), here=range(5))
    assert allot(hello("a"), shards=10, held={5: "b"}, away=set(), here=range(5, 10)) == 6
