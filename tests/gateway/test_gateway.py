"""Trees of gateways on real sockets: the model of one server, to the bit, also when a gateway is killed."""

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import pytest

from featherfed.errors import LocalError
from featherfed.gateway.serving import gateway_rules
from featherfed.server.config import config_from
from featherfed.server.rounds.events import Asked
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.service import Service
from featherfed.wire.closing import Close
from featherfed.wire.messages import Accepted
from tests.gateway.trees import SETTINGS, address, gateway, play_all
from tests.server.peer import hello, peer
from tests.serving import serving


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


async def test_tree_follows_a_run_whose_cohort_and_uplink_change(tmp_path: Path) -> None:
    changing = {**SETTINGS, "cohort": "5,2", "uplink": "1:rotate | eden(1),3:float32"}
    async with serving(tmp_path, name="one", **changing) as one:
        await asyncio.wait_for(play_all([(one.address, shard) for shard in range(6)]), 60)
        assert await asyncio.wait_for(one.ended, 30) is None
        rows = one.report()["rounds"]
    assert [row["accepted"] for row in rows] == [5, 2, 2]
    assert rows[2]["uplink"]["payload"] > 20 * rows[1]["uplink"]["payload"]
    async with (
        serving(tmp_path, **{**changing, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "g0", 0, 2, **changing) as (first, told),
        gateway(root.address, tmp_path / "g1", 1, 2, **changing) as (second, told_second),
    ):
        places = [await address(told, first)] * 3 + [await address(told_second, second)] * 3
        await asyncio.wait_for(play_all(zip(places, range(6), strict=True)), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(asyncio.gather(first, second), 30)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "run")]
    assert models[0] == models[1]


@pytest.mark.parametrize("downlink", ["lattice(1)", "fresh | rotate | eden(4)"])
async def test_tree_gives_the_model_of_one_server_in_any_downlink(tmp_path: Path, downlink: str) -> None:
    few = {**SETTINGS, "phones": 4, "cohort": 2, "rounds": 4, "downlink": downlink}
    async with serving(tmp_path / "one", **few) as alone:
        await asyncio.wait_for(play_all((alone.address, shard) for shard in range(4)), 60)
        assert await asyncio.wait_for(alone.ended, 30) is None
        expected = alone.folder.model.read_bytes()
    async with (
        serving(tmp_path, **{**few, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "g0", 0, 2, **few) as (first, told),
        gateway(root.address, tmp_path / "g1", 1, 2, **few) as (second, told_second),
    ):
        places = [await address(told, first)] * 2 + [await address(told_second, second)] * 2
        await asyncio.wait_for(play_all(zip(places, range(4), strict=True)), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(asyncio.gather(first, second), 30)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == expected


async def test_root_may_name_a_preset_and_the_gateway_its_stages(tmp_path: Path) -> None:
    few = {**SETTINGS, "phones": 2, "cohort": 2, "rounds": 1}
    async with (
        serving(tmp_path, **{**few, "gateways": 1, "uplink": "eden-1bit"}) as root,
        gateway(root.address, tmp_path / "g0", 0, 1, **{**few, "uplink": "rotate|eden(1)"}) as (first, told),
    ):
        place = await address(told, first)
        await asyncio.wait_for(play_all([(place, shard) for shard in range(2)]), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(first, 30)


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


async def test_gateway_whose_root_is_a_round_further_reads_its_sum_again_before_it_is_closed(
    tmp_path: Path, one_server: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, restore = threading.Event(), UploadRegister.restore
    seen: list[int] = []

    def ask(service: Service, round_number: int, life: int = 0) -> None:
        seen.append(round_number)
        asked.set()
        service._tasks.spawn(service._ask(Asked(round_number, life)))

    def slow(uploads: UploadRegister, round_number: int, is_open: bool) -> None:
        if is_open:
            assert asked.wait(20), "the root asks meanwhile"
            time.sleep(0.1)
        restore(uploads, round_number, is_open)

    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "g1", 1, 2) as (second, told_second),
    ):
        there = await address(told_second, second)
        async with gateway(root.address, tmp_path / "g0", 0, 2) as (first, told):
            place = await address(told, first)
            playing = asyncio.create_task(play_all([(place, shard) for shard in (0, 1, 2)]))
            # Its sum is at the root, whose round is open; this gateway is killed before it hears of the next one.
            while not root.watcher.told("update_accepted"):
                await asyncio.sleep(0.005)
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
        others = asyncio.create_task(play_all([(there, shard) for shard in (3, 4, 5)]))
        while len(root.watcher.told("round_opened")) < 2:
            await asyncio.sleep(0.005)
        monkeypatch.setattr(Service, "ask", ask)
        monkeypatch.setattr(UploadRegister, "restore", slow)
        async with gateway(root.address, tmp_path / "g0", 0, 2) as (first, told):
            place = await address(told, first)
            assert seen[0] == 2
            await asyncio.wait_for(asyncio.gather(play_all([(place, shard) for shard in range(3)]), others), 60)
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one_server


async def test_gateway_that_was_started_for_another_run_says_what_differs(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 1, "uplink": "float32"}) as root,
        gateway(root.address, tmp_path / "a", 0, 1, seed=99) as (first, _),
    ):
        with pytest.raises(LocalError, match="the root runs with --seed 3, this gateway with 99"):
            await asyncio.wait_for(first, 30)


def test_gateways_ask_whom_one_server_would_ask() -> None:
    config = config_from({"phones": 103, "cohort": 17, "seed": 5})
    for round_number in range(1, 30):
        assert sum(gateway_rules(config, index, 4).asked(round_number) for index in range(4)) == 17
    assert sum(gateway_rules(config, index, 4).phones for index in range(4)) == 103


def test_phone_of_another_gateway_is_told_so(tmp_path: Path) -> None:
    from featherfed.server.phones.admission import NoShardError, allot
    from tests.server.peer import hello

    with pytest.raises(NoShardError, match="shard 7 is played at another gateway; this one has 0 to 4"):
        allot(hello("a", shard=7), shards=10, held={}, away=set(), here=range(5))
    assert allot(hello("a"), shards=10, held={5: "b"}, away=set(), here=range(5, 10)) == 6


async def test_tree_of_gateways_of_gateways_gives_the_model_of_one_server(tmp_path: Path, one_server: bytes) -> None:
    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "middle", 0, 2, gateways=2) as (middle, told_middle),
        gateway(root.address, tmp_path / "right", 1, 2) as (right, told_right),
    ):
        above = await address(told_middle, middle)
        async with (
            gateway(above, tmp_path / "g0", 0, 4) as (first, told_first),
            gateway(above, tmp_path / "g1", 1, 4) as (second, told_second),
        ):
            # ⌊6/4⌋ of the shards, then the rest of the middle one's; the other half is at the root's second gateway.
            places = [await address(told_first, first), *[await address(told_second, second)] * 2]
            places += [await address(told_right, right)] * 3
            await asyncio.wait_for(play_all(zip(places, range(6), strict=True)), 60)
            assert await asyncio.wait_for(root.ended, 30) is None
            ends = await asyncio.wait_for(asyncio.gather(first, second, middle, right), 30)
    assert ends == ["all 3 rounds are done"] * 4
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one_server


async def test_gateway_of_another_middle_is_refused(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, **{**SETTINGS, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "middle", 0, 2, gateways=2) as (middle, told),
        gateway(await address(told, middle), tmp_path / "lost", 2, 4) as (lost, _),
    ):
        with pytest.raises(LocalError, match="shard 2 is played at another gateway; this one has 0 to 1"):
            await asyncio.wait_for(lost, 30)


async def test_phone_that_comes_to_the_root_is_told_where_to_go(tmp_path: Path) -> None:
    async with serving(tmp_path, **{**SETTINGS, "gateways": 2}) as root, peer(root.address) as phone:
        await phone.send(hello("alice", shard=0, shards=2))
        assert await phone.closed() == (
            Close.REFUSED, "this is the root of gateways; give phone 'alice' a gateway's address as its server"
        )  # fmt: skip


async def test_gateways_wait_for_their_phones_before_the_first_round_whatever_the_deadline(tmp_path: Path) -> None:
    settings = {**SETTINGS, "rounds": 1, "deadline": 0.3, "max_retries": 0}
    async with (
        serving(tmp_path, **{**settings, "gateways": 1}) as root,
        gateway(root.address, tmp_path / "g0", 0, 1, **settings) as (only, told),
    ):
        place = await address(told, only)
        await asyncio.sleep(1.0)
        await asyncio.wait_for(play_all([(place, shard) for shard in range(6)]), 30)
        assert await asyncio.wait_for(root.ended, 30) is None
        assert await asyncio.wait_for(only, 30) == "all 1 rounds are done"


async def test_root_pauses_after_as_many_rounds_without_any_phone_s_update_as_one_server_makes_attempts(
    tmp_path: Path,
) -> None:
    """Their gateways hand up empty sums: a run would come to its end, and its model would have learned nothing."""
    settings = {**SETTINGS, "rounds": 20, "deadline": 0.3, "max_retries": 2}
    async with (
        serving(tmp_path, **{**settings, "gateways": 1}) as root,
        gateway(root.address, tmp_path / "g0", 0, 1, **settings) as (only, told),
        contextlib.AsyncExitStack() as mute,
    ):
        place = await address(told, only)
        for shard in range(6):
            phone = await mute.enter_async_context(peer(place))
            await phone.join(f"phone-{shard}", shard=shard)
        why = await asyncio.wait_for(root.ended, 60)
        assert why is not None
        assert why.startswith(
            "no gateway had an update of a phone in the last 3 rounds, up to 3: see whether phones reach"
        )
