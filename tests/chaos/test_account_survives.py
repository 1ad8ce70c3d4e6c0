"""A server that dies at any write of a run with differential privacy has each row of its account, and none too many."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from featherfed.edge_client import backoff
from featherfed.privacy.accounting import apart, epsilon
from featherfed.privacy.noise import sensitivity
from featherfed.server.storage.privacy_rows import account, charges_table, privacy_by_round
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Store
from tests.chaos.test_crash_points import DieAt, Died, alive, play

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

Serve = Callable[..., Any]
DP: dict[str, Any] = {"dp": "central", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-3}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back at once."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)


def check(folder: RunFolder) -> int:
    """Check that each closed round, and no other, has its rows, and the model its version; return their number."""
    store = Store(folder.database)
    try:
        closed = [row.round for row in store.rounds() if row.state == "closed"]
        charged = {(row.round, row.shard): row.rho for row in store.read(sa.select(charges_table))}
        assert charged == {(number, shard): 0.5 for number in closed for shard in range(2)}
        noted = privacy_by_round(store)
        assert list(noted) == closed
        for number in closed:
            assert noted[number].epsilon == pytest.approx(epsilon(0.5 * number, 1e-3, apart=apart(sensitivity(1.0, 0))))
        assert account(store).most.rho == 0.5 * len(closed)
        assert int(store.values().get("version", 0)) == len(closed)
        return len(closed)
    finally:
        store.close()


@pytest.mark.parametrize("moment", ["inside", "after"])
async def test_die_at_every_write_and_lose_no_row(serve: Serve, tmp_path: Path, moment: str) -> None:
    seen: set[int] = set()
    number, lives = 0, 2
    while lives > 1:
        number += 1
        name = f"{moment}-{number}"
        folder = RunFolder(tmp_path / name)
        die = DieAt(moment, number)

        def look(moment: str, folder: RunFolder = folder, looked: list[int] = []) -> None:  # noqa: B006
            if not looked:
                looked.append(check(folder))
                seen.add(looked[0])

        *_, lives = await play(serve, tmp_path, name, [die, look if number > 1 else alive], **DP)
        assert check(folder) == 2
        assert not list(folder.path.glob("model-1.*"))
    # Deaths at the very last writes come by the clock: how many writes a run has depends on which updates share one.
    assert number >= 10 and seen >= {0, 1}


async def test_die_after_the_last_round_is_closed_and_lose_no_row(serve: Serve, tmp_path: Path) -> None:
    folder, dead = RunFolder(tmp_path / "last"), False

    def die(moment: str) -> None:
        nonlocal dead
        dead = dead or (moment == "after" and folder.database.exists() and check(folder) == 2)
        if dead:
            raise Died

    *_, lives = await play(serve, tmp_path, "last", [die, alive], **DP)
    assert lives == 2
    assert check(folder) == 2
    assert not list(folder.path.glob("model-1.*"))
