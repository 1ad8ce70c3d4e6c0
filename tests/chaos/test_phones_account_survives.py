"""A server that dies at any write of a run whose phones add the noise has charged for each sum that could be opened."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from featherfed.edge_client import backoff
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.privacy.accounting import epsilon
from featherfed.server.storage.circle_rows import circles
from featherfed.server.storage.privacy_rows import account, charges_table, privacy_by_round
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Store
from lab.chaos.tollgate import Tollgate
from lab.chaos.wiretap import Witness
from tests.chaos.test_crash_points import DieAt, Died, alive

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

Serve = Callable[..., Any]
PHONES = 5
RUN: dict[str, Any] = {
    "phones": PHONES, "rounds": 2, "secure": True, "circle": 5, "problem": "digits/tiny", "eval_every": 2,
    "uplink": "subspace(100) | grid(12)", "dp": "distributed", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)


def check(folder: RunFolder) -> int:
    """Check that who is in a sum that counts has paid for it, once; return how many rounds are closed."""
    store = Store(folder.database)
    try:
        closed = [row.round for row in store.rounds() if row.state == "closed"]
        rows = store.read(sa.select(charges_table))
        charged = {(row.round, row.shard) for row in rows}
        assert len(charged) == len(rows) and len({row.rho for row in rows}) <= 1
        assert charged >= {(number, shard) for number in closed for shard in range(PHONES)}
        for number in range(1, 3):
            for row in circles(store, number):
                assert row.state != "summed" or charged >= {(number, shard) for shard in row.counted}
        for number in closed:
            assert privacy_by_round(store)[number].epsilon == pytest.approx(epsilon(rows[0].rho * number, 1e-3))
        assert {each.rounds for each in account(store).phones.values()} <= {1, 2}
        return len(closed)
    finally:
        store.close()


async def play(serve: Serve, tmp_path: Path, name: str, injectors: list[Callable[[str], None]]) -> int:
    """Play a run over as many lives as there are injectors; return how many it took."""
    gate = Tollgate(Witness(), lambda total: None)
    address = f"ws://127.0.0.1:{await gate.open(0)}"
    options = [
        PhoneOptions(
            server=address, train=False, name=f"p{shard}", shard=(shard, PHONES),
            state_dir=str(tmp_path / f"{name}-{shard}"),
        )
        for shard in range(PHONES)
    ]  # fmt: skip
    phones = [asyncio.create_task(play_phone(one, lambda line: None)) for one in options]
    try:
        async with asyncio.timeout(60):
            for life, injector in enumerate(injectors):
                with contextlib.suppress(Died):
                    where = {"name": name, "resume": True} if life else {"name": name, **RUN}
                    async with serve(disk={"injector": injector}, **where) as served:
                        gate.aim(int(served.address.rpartition(":")[2]))
                        with contextlib.suppress(Died):
                            assert await served.ended is None
                            assert [row["accepted"] for row in served.report()["rounds"]] == [PHONES, PHONES]
                            return life + 1
            raise AssertionError("the run did not end in its last life")
    finally:
        for task in phones:
            task.cancel()
        await asyncio.gather(*phones, return_exceptions=True)
        await gate.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["inside", "after"])
async def test_die_at_every_write_and_have_paid_for_what_could_be_opened(
    serve: Serve, tmp_path: Path, moment: str
) -> None:
    seen: set[int] = set()
    number, lives = 0, 2
    while lives > 1:
        number += 1
        name = f"{moment}-{number}"
        folder = RunFolder(tmp_path / name)

        def look(moment: str, folder: RunFolder = folder, looked: list[int] = []) -> None:  # noqa: B006
            if not looked:
                looked.append(check(folder))
                seen.add(looked[0])

        lives = await play(serve, tmp_path, name, [DieAt(moment, number), look if number > 1 else alive])
        assert check(folder) == 2
    # Names, keys, and of each of two rounds circles, uploads, the final list, shares, charges, the count, the close.
    assert number >= 12 and seen >= {0, 1}
