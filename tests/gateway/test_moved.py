"""A gateway whose disk is gone, in the middle of a round: real phones bring back what it had."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.gateway.held import HeldPhones
from tests.gateway.trees import SETTINGS, address, gateway
from tests.serving import serving

ROW = range(3)
"""The shards of the gateway that moves."""
MOVES = [(1, "rotate | eden(1)"), (2, "feedback | topk(1/10) | ternary"), (2, "subsample(1/4) | rotate | eden(1)")]
"""In which round, and with which uplink."""


@pytest.mark.parametrize(("round_number", "uplink"), MOVES)
async def test_gateway_without_its_disk_costs_no_round_and_no_training(
    tmp_path: Path, round_number: int, uplink: str
) -> None:
    settings = {**SETTINGS, "uplink": uplink}
    phones = HeldPhones(settings, ROW, round_number)
    async with serving(tmp_path / "one", **settings) as served:
        phones.may.set()
        await asyncio.gather(*phones.start([served.address]))
        assert await served.ended is None
    phones = HeldPhones(settings, ROW, round_number)
    (tmp_path / "tree").mkdir()
    async with (
        serving(tmp_path, **{**settings, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "tree" / "g1", 1, 2, **settings) as (second, told_second),
    ):
        there = await address(told_second, second)
        async with gateway(root.address, tmp_path / "tree" / "g0", 0, 2, **settings) as (first, told):
            place = await address(told, first)
            playing = phones.start([place, there])
            await asyncio.wait_for(phones.in_the_middle(), 30)
        shutil.rmtree(tmp_path / "tree" / "g0")
        port = int(place.rpartition(":")[2])
        moved = gateway(root.address, tmp_path / "tree" / "g0", 0, 2, entrance={"port": port}, **settings)
        async with moved as (first, _):
            phones.may.set()
            assert await asyncio.wait_for(asyncio.gather(*playing), 60) == ["all 3 rounds are done"] * 6
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        rounds = root.report()["rounds"]
    one = tmp_path / "one" / "run" / "model.safetensors"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one.read_bytes()
    assert [row["accepted"] for row in rounds] == [2] * 3
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * settings["cohort"], "nobody trained twice"
