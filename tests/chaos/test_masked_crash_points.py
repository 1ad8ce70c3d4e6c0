"""Die at every write of a masked run, before it is durable and just after, and go on to the same model."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from featherfed.edge_client import backoff
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.secure.keys import PhoneKey
from featherfed.wire.closing import Close
from lab.chaos.tollgate import Tollgate
from lab.chaos.wiretap import Witness
from tests.chaos.test_crash_points import DieAt, Died, alive
from tests.server.rounds.masker import masker

Serve = Callable[..., Any]
PHONES = 6
RUN: dict[str, Any] = {
    "phones": PHONES, "rounds": 1, "secure": True, "circle": 6, "problem": "digits/tiny", "eval_every": 2,
    "uplink": "feedback | exact(0) | flat | rotate_shared | grid(6)",
}  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.1)


async def idle(address: str) -> None:
    """Come as often as it takes, with one key, and leave each task undone: the others tell what they share with it."""
    key = PhoneKey.new()
    while True:
        with contextlib.suppress(OSError, WebSocketException, AssertionError):
            async with masker(address, PHONES - 1, key) as phone:
                await phone.enter(PHONES)
                await phone.circle()
                await phone.connection.close(Close.UNTRAINED, "nothing to send")
        await asyncio.sleep(0.02)


async def play(serve: Serve, tmp_path: Path, name: str, injectors: list[Callable[[str], None]]) -> tuple[bytes, int]:
    """Play a run over as many lives as there are injectors; return its model and how many lives it took."""
    gate = Tollgate(Witness(), lambda total: None)
    address = f"ws://127.0.0.1:{await gate.open(0)}"
    options = [
        PhoneOptions(
            server=address, train=False, name=f"p{shard}", shard=(shard, PHONES),
            state_dir=str(tmp_path / f"{name}-{shard}"),
        )
        for shard in range(PHONES - 1)
    ]  # fmt: skip
    phones = [asyncio.create_task(play_phone(one, lambda line: None)) for one in options]
    idler = asyncio.create_task(idle(address))
    try:
        async with asyncio.timeout(60):
            for life, injector in enumerate(injectors):
                with contextlib.suppress(Died):
                    where = {"name": name, "resume": True} if life else {"name": name, **RUN}
                    async with serve(disk={"injector": injector}, **where) as served:
                        gate.aim(int(served.address.rpartition(":")[2]))
                        with contextlib.suppress(Died):
                            assert await served.ended is None
                            faults = [sentence for *_, sentence in served.watcher.told("fault")]
                            assert all("nothing to send" in sentence for sentence in faults), faults
                            assert served.report()["rounds"][0]["accepted"] == PHONES - 1
                            return served.folder.model.read_bytes(), life + 1
            raise AssertionError("the run did not end in its last life")
    finally:
        for task in (*phones, idler):
            task.cancel()
        await asyncio.gather(*phones, idler, return_exceptions=True)
        await gate.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["inside", "after"])
async def test_die_at_every_write_of_a_masked_round_and_go_on(serve: Serve, tmp_path: Path, moment: str) -> None:
    calm, _ = await play(serve, tmp_path, "calm", [alive])
    number, lives = 0, 2
    while lives > 1:
        number += 1
        model, lives = await play(serve, tmp_path, f"{moment}-{number}", [DieAt(moment, number), alive])
        assert model == calm, f"died {moment} write {number}"
    # Names, keys, the circles, uploads, a list, its answers, the final one, its answers, the count, the close.
    assert number >= 10
