"""A gateway dies at every write of a masked round with one phone lost, and goes on: the root's model is the same."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from lab.chaos.tollgate import Tollgate
from lab.chaos.wiretap import Witness
from tests.chaos.test_crash_points import DieAt, Died, alive
from tests.chaos.test_masked_crash_points import PHONES, RUN, idle, impatient
from tests.gateway.trees import address, gateway
from tests.serving import serving

__all__ = ["impatient"]
SETTINGS: dict[str, Any] = {**RUN, "cohort": PHONES, "downlink": "float32", "heartbeat": 5.0, "seed": 0}


async def play(folder: Path, injectors: list[Callable[[str], None]]) -> tuple[bytes, int]:
    """Play a run over as many lives of the gateway as there are injectors; return the root's model, and the lives."""
    folder.mkdir()
    gate = Tollgate(Witness(), lambda total: None)
    way = f"ws://127.0.0.1:{await gate.open(0)}"
    options = [
        PhoneOptions(
            server=way, train=False, name=f"p{shard}", shard=(shard, PHONES), state_dir=str(folder / str(shard))
        )
        for shard in range(PHONES - 1)
    ]  # fmt: skip
    phones = [asyncio.create_task(play_phone(one, lambda line: None)) for one in options]
    idler = asyncio.create_task(idle(way))
    try:
        async with asyncio.timeout(90), serving(folder, **{**SETTINGS, "gateways": 1}) as root:
            for life, injector in enumerate(injectors):
                with contextlib.suppress(Died):
                    disk = {"injector": injector}
                    async with gateway(root.address, folder / "g0", 0, 1, disk=disk, **SETTINGS) as (serving_it, told):
                        there = asyncio.ensure_future(address(told, serving_it))
                        await asyncio.wait({there, root.ended}, return_when=asyncio.FIRST_COMPLETED)
                        if not there.done():
                            # Its last life had said all that its root waited for, which has ended a moment later.
                            there.cancel()
                            return root.folder.model.read_bytes(), life
                        gate.aim(int((await there).rpartition(":")[2]))
                        await serving_it
                        assert await root.ended is None
                        (summary,) = told.told("round_closed")[-1]
                        assert summary.accepted == PHONES - 1
                        return root.folder.model.read_bytes(), life + 1
                if root.ended.done():
                    # It died when it had said all that its root waited for.
                    return root.folder.model.read_bytes(), life + 1
            raise AssertionError("the run did not end in the gateway's last life")
    finally:
        for task in (*phones, idler):
            task.cancel()
        await asyncio.gather(*phones, idler, return_exceptions=True)
        await gate.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("moment", "first"), [("inside", 1), ("after", 2)])
async def test_gateway_dies_at_every_write_of_a_masked_round_and_goes_on(
    tmp_path: Path, moment: str, first: int
) -> None:
    """At every second one inside its transaction, at the others just after it."""
    calm, _ = await play(tmp_path / "calm", [alive])
    number, lives = first, 2
    while lives > 1:
        model, lives = await play(tmp_path / f"{moment}-{number}", [DieAt(moment, number), alive])
        assert model == calm, f"died {moment} write {number}"
        number += 2
    assert number >= 12
