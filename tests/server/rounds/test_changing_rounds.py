"""Runs on real sockets whose cohort and uplink change by round."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.server.config import read_config
from featherfed.wire.closing import Close
from featherfed.wire.messages import NOTHING, PROTOCOL_VERSION, Accepted, Hello, Task, Welcome
from tests.layouts import LAYOUTS
from tests.server.peer import peer

Serve = Callable[..., Any]
WAIT_S = 30.0
CHANGING = {"phones": 3, "cohort": "3,1", "rounds": 3, "uplink": "1:float32,2:rotate | eden(1)"}
SIZES = [round(Pipeline.parse(spec).theory_bytes(LAYOUTS["lite"])) for spec in ("float32", "rotate | eden(1)")]


async def play(address: str, count: int) -> None:
    phones = [PhoneOptions(server=address, train=False, name=f"p{number}") for number in range(count)]
    await asyncio.wait_for(asyncio.gather(*(play_phone(one, lambda line: None) for one in phones)), WAIT_S)


async def test_each_round_asks_its_cohort_for_its_own_codec(serve: Serve) -> None:
    async with serve(**CHANGING) as served:
        await play(served.address, 3)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        rows = served.report()["rounds"]
        told = [target for _, _, _, target in served.watcher.told("update_accepted")]
    assert [(row["cohort"], row["accepted"]) for row in rows] == [(3, 3), (1, 1), (1, 1)]
    assert [row["uplink"]["payload"] for row in rows] == [3 * SIZES[0], SIZES[1], SIZES[1]]
    assert [row["uplink"]["theory"] for row in rows] == [3 * SIZES[0], SIZES[1], SIZES[1]]
    assert told == [3, 3, 3, 1, 1]


async def test_resumed_run_goes_on_with_the_values_of_its_round(serve: Serve) -> None:
    async with serve(**CHANGING, name="calm") as served:
        await play(served.address, 3)
        await asyncio.wait_for(served.ended, WAIT_S)
        calm = served.folder.model.read_bytes()
    async with serve(**CHANGING, name="stopped") as served:
        playing = asyncio.create_task(play(served.address, 3))
        while not served.watcher.told("round_closed"):
            await asyncio.sleep(0.001)
        served.ended.cancel()
        await asyncio.wait({served.ended})
        playing.cancel()
        await asyncio.wait({playing})
    assert read_config(served.folder.path / "config.toml").uplink_at(2) == "rotate | eden(1)"
    async with serve(resume=True, name="stopped") as served:
        await play(served.address, 3)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        rows = served.report()["rounds"]
        again = served.folder.model.read_bytes()
    assert [row["accepted"] for row in rows] == [3, 1, 1]
    assert again == calm


async def test_update_that_is_too_long_for_its_round_s_uplink_is_refused(serve: Serve) -> None:
    async with serve(**{**CHANGING, "phones": 1, "cohort": 1}) as served, peer(served.address) as phone:
        await phone.join("one")
        await phone.upload(1, phone.update(await phone.task()))
        await phone.receive_until(Accepted)
        await phone.task()
        await phone.upload(2, bytes(SIZES[0]))
        code, reason = await phone.closed()
    assert code == Close.REFUSED
    assert f"update of {SIZES[0]} bytes exceeds" in reason and "rotate | eden(1)" in reason


@pytest.mark.parametrize(("cohort", "counts"), [("3,1", [3, 1, 1]), ("1,3", [1, 3, 3])])
async def test_buffer_of_an_asynchronous_run_is_its_round_s_cohort(
    serve: Serve, cohort: str, counts: list[int]
) -> None:
    async with serve(mode="async", phones=3, cohort=cohort, rounds=3) as served:
        await play(served.address, 3)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        rows = served.report()["rounds"]
    # Updates that were under way when a buffer closed count in the next one.
    assert all(row["accepted"] >= least for row, least in zip(rows, counts, strict=True))


async def test_who_comes_in_a_round_is_welcomed_with_its_settings_and_told_of_no_changes(serve: Serve) -> None:
    run = {"phones": 1, "cohort": 1, "rounds": 3, "epochs": "1,3", "uplink": CHANGING["uplink"], "run_id": "r"}
    async with serve(**run, downlink="rotate | eden(1)") as served:
        async with peer(served.address) as phone:
            welcome = await phone.join("one")
            assert (welcome.uplink, welcome.training[0]) == ("float32", 1)
            await phone.upload(1, phone.update(await phone.task()))
            await phone.receive_until(Accepted)
            assert (await phone.task()).changes == {"epochs": 3, "uplink": "rotate | eden(1)"}
        async with peer(served.address) as phone:
            await phone.send(Hello(PROTOCOL_VERSION, "one", NOTHING, 0, run="r", held_version=0))
            phone.welcome = welcome = await phone.receive()
            assert isinstance(welcome, Welcome)
            assert (welcome.uplink, welcome.training[0]) == ("rotate | eden(1)", 3)
            task = await phone.task()
            assert task == Task(2, 1)
            await phone.upload(2, phone.update(task))
            assert await phone.receive_until(Accepted) == Accepted(2)


async def test_phone_that_comes_back_goes_on_with_its_training_whatever_its_next_welcome_says(serve: Serve) -> None:
    """Its learner was made by the first round's Welcome; the update is of the round that asks for it all the same."""
    run = {"phones": 2, "cohort": 2, "rounds": 3, "uplink": CHANGING["uplink"]}
    async with serve(**run) as served:
        lines: list[str] = []
        options = [PhoneOptions(server=served.address, train=False, name=f"p{number}") for number in range(2)]
        playing = [asyncio.create_task(play_phone(one, lines.append)) for one in options]
        while not served.watcher.told("round_closed"):
            await asyncio.sleep(0.001)
        for connection in served.service.fleet.connections.values():
            connection.abort()
        await asyncio.wait_for(asyncio.gather(*playing), WAIT_S)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        rows = served.report()["rounds"]
    assert [row["uplink"]["theory"] for row in rows] == [2 * SIZES[0], 2 * SIZES[1], 2 * SIZES[1]]
    assert sum("ready with" in line for line in lines) == 2, "each phone has made one learner"
