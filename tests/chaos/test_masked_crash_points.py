"""Die at every write of a masked run, before it is durable and just after, and go on from the disk to the same model."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client import backoff
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from lab.chaos.tollgate import Tollgate
from lab.chaos.wiretap import Witness
from tests.chaos.test_crash_points import DieAt, Died, alive

Serve = Callable[..., Any]
PHONES = 6
RUN: dict[str, Any] = {
    "phones": PHONES, "rounds": 1, "secure": True, "circle": 6, "problem": "digits/tiny", "eval_every": 2,
    "uplink": "feedback | exact(0) | flat | rotate_shared | grid(6)", "unmask_deadline": 2.0, "deadline": 4.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)


async def play(
    serve: Serve, tmp_path: Path, name: str, injectors: list[Callable[[str], None]], absent: int
) -> tuple[bytes, int]:
    """Play a run over as many lives as there are injectors; `absent` joins, and leaves without an update."""
    gate = Tollgate(Witness(), lambda total: None)
    port = await gate.open(0)
    phones = [
        asyncio.create_task(
            play_phone(
                PhoneOptions(
                    server=f"ws://127.0.0.1:{port}", train=False, name=f"p{shard}", shard=(shard, PHONES),
                    state_dir=str(tmp_path / f"{name}-{shard}"), dropout=0.99 if shard < absent else 0.0,
                ),
                lambda line: None,
            )
        )
        for shard in range(PHONES)
    ]  # fmt: skip
    try:
        async with asyncio.timeout(60):
            for life, injector in enumerate(injectors):
                with contextlib.suppress(Died):
                    where = {"name": name, "resume": True} if life else {"name": name, **RUN}
                    async with serve(disk={"injector": injector}, **where) as served:
                        gate.aim(int(served.address.rpartition(":")[2]))
                        with contextlib.suppress(Died):
                            assert await served.ended is None
                            assert not served.watcher.told("fault")
                            return served.folder.model.read_bytes(), life + 1
            raise AssertionError("the run did not end in its last life")
    finally:
        for phone in phones:
            phone.cancel()
        await asyncio.gather(*phones, return_exceptions=True)
        await gate.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["inside", "after"])
async def test_die_at_every_write_of_a_masked_round_and_go_on(serve: Serve, tmp_path: Path, moment: str) -> None:
    calm, _ = await play(serve, tmp_path, "calm", [alive], 0)
    number, lives = 0, 2
    while lives > 1:
        number += 1
        model, lives = await play(serve, tmp_path, f"{moment}-{number}", [DieAt(moment, number), alive], 0)
        assert model == calm, f"died {moment} write {number}"
    assert number >= 6
