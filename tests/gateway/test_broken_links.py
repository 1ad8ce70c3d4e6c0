"""A gateway's connections, up to its root and down to its phones, end alone: the tree makes the model of one server."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client import backoff
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from tests.cutting import Cut, cutting
from tests.gateway.trees import address, gateway
from tests.serving import serving

SETTINGS: dict[str, Any] = {
    "problem": "digits/2nn", "phones": 2, "cohort": 2, "rounds": 2, "seed": 3, "uplink": "float32",
    "downlink": "float32", "heartbeat": 5.0,
}  # fmt: skip
MIDDLE, LATE = 150_000, 400_000
UPWARD = [
    Cut("down", MIDDLE, "rst"), Cut("down", LATE, "fin"), Cut("up", 40, "rst"), Cut("up", MIDDLE, "rst"),
    Cut("up", MIDDLE, "fin"), Cut("down", MIDDLE, "rst"),
]  # fmt: skip
DOWNWARD = [Cut("down", LATE, "rst"), Cut("up", MIDDLE, "fin"), Cut("down", MIDDLE, "fin"), Cut("up", LATE, "rst")]


async def play_all(ports: Sequence[int]) -> None:
    options = [
        PhoneOptions(server=f"ws://127.0.0.1:{port}", train=False, name=f"p{shard}", shard=(shard, len(ports)))
        for shard, port in enumerate(ports)
    ]
    ends = await asyncio.wait_for(asyncio.gather(*(play_phone(one, lambda line: None) for one in options)), 60)
    assert ends == ["all 2 rounds are done"] * len(ports)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def test_tree_whose_connections_break_everywhere_makes_the_model_of_one_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.1)
    async with serving(tmp_path, name="one", **SETTINGS) as one:
        await play_all([port_of(one.address)] * 2)
        assert await one.ended is None
    async with (
        serving(tmp_path, **SETTINGS, gateways=2) as root,
        cutting(port_of(root.address), UPWARD) as upward,
        gateway(f"ws://127.0.0.1:{upward.port}", tmp_path / "g0", 0, 2, **SETTINGS) as (first, told),
        gateway(f"ws://127.0.0.1:{upward.port}", tmp_path / "g1", 1, 2, **SETTINGS) as (second, told_second),
        cutting(port_of(await address(told, first)), DOWNWARD) as of_first,
        cutting(port_of(await address(told_second, second)), DOWNWARD) as of_second,
    ):
        await play_all([of_first.port, of_second.port])
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(asyncio.gather(first, second), 30)
    for cutter in (upward, of_first, of_second):
        assert {cut.way for cut in cutter.made} == {"up", "down"}
    one_model, tree_model = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "run"))
    assert tree_model == one_model
