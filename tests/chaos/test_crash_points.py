"""Die at every write of a run in turn, once before it is durable and once just after, and go on from the disk."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client import backoff
from featherfed.edge_client.dialing import DirectDialer
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import LocalError
from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.store import Store
from lab.chaos.tollgate import Tollgate
from lab.chaos.wiretap import Witness

Serve = Callable[..., Any]
RUN: dict[str, Any] = {
    "phones": 2, "rounds": 2, "uplink": "feedback | topk(1/8)",
}  # fmt: skip


class Died(LocalError):
    """The end of the process: nothing is written any more."""


class DieAt:
    """Dies at the n-th call for a moment, and at every later one."""

    def __init__(self, moment: str, number: int) -> None:
        self.moment, self.left = moment, number
        self.dead = False

    def __call__(self, moment: str) -> None:
        if moment == self.moment:
            self.left -= 1
        if self.left <= 0 or self.dead:
            self.dead = True
            raise Died


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back at once, and send an update in three chunks."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.1)
    monkeypatch.setattr(DirectDialer, "chunk_bytes", property(lambda self: 8192))


async def play(
    serve: Serve, tmp_path: Path, name: str, injectors: list[Callable[[str], None]], **settings: Any
) -> tuple[bytes, list[tuple[int, int]], Witness, int]:
    """Play a run over as many lives of the server as there are injectors; return model, updates, witness and lives."""
    witness = Witness()
    gate = Tollgate(witness, lambda total: None)
    port = await gate.open(0)
    options = [
        PhoneOptions(
            server=f"ws://127.0.0.1:{port}", train=False, name=f"p{shard}", shard=(shard, 2),
            state_dir=str(tmp_path / f"{name}-{shard}"),
        )
        for shard in range(2)
    ]  # fmt: skip
    phones = [asyncio.create_task(play_phone(one, lambda line: None)) for one in options]
    try:
        async with asyncio.timeout(60):
            for life, injector in enumerate(injectors):
                with contextlib.suppress(Died):
                    where = {"name": name, "resume": True} if life else {"name": name, **RUN, **settings}
                    async with serve(disk={"injector": injector}, **where) as served:
                        gate.aim(int(served.address.rpartition(":")[2]))
                        with contextlib.suppress(Died):
                            assert await served.ended is None
                            counted = [(update.shard, update.size) for update in served.store.updates()]
                            ledger = Ledger(served.store.traffic())
                            for shard in range(2):
                                total = ledger.total("uplink", shard=shard)
                                size = sum(size for owner, size in counted if owner == shard)
                                assert total.payload - total.resent - total.wasted == size
                            return served.folder.model.read_bytes(), counted, witness, life + 1
            raise AssertionError("the run did not end in its last life")
    finally:
        for phone in phones:
            phone.cancel()
        await asyncio.gather(*phones, return_exceptions=True)
        await gate.close()


def alive(moment: str) -> None:
    """Inject nothing."""


def told(run: Path) -> tuple[Any, ...]:
    """Return what the rounds of a run were evaluated to, and the best model."""
    store = Store(run / "run.sqlite")
    try:
        figures = [(row.round, row.loss, row.metrics) for row in store.rounds()]
    finally:
        store.close()
    return figures, (run / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("moment", "downlink"),
    [("inside", "rotate | eden(4)"), ("after", "rotate | eden(4)"), ("inside", "lattice(1)"), ("after", "lattice(1)"),
     ("inside", "fresh | rotate | eden(4)")],
)  # fmt: skip
async def test_die_at_every_write_and_go_on(serve: Serve, tmp_path: Path, moment: str, downlink: str) -> None:
    calm, *_ = await play(serve, tmp_path, "calm", [alive], downlink=downlink)
    figures = told(tmp_path / "calm")
    assert all(loss is not None for _, loss, _ in figures[0])
    number, lives = 0, 2
    while lives > 1:
        number += 1
        name = f"{moment}-{number}"
        model, counted, witness, lives = await play(
            serve, tmp_path, name, [DieAt(moment, number), alive], downlink=downlink
        )
        assert model == calm, f"died {moment} write {number}"
        assert told(tmp_path / name) == figures, f"died {moment} write {number}"
        assert (witness.lost_bytes, witness.again_bytes) == (0, 0), f"died {moment} write {number}"
        assert sorted(shard for shard, _ in counted) == [0, 0, 1, 1]
    # put_phone, put_round, announcements, chunks and acceptances of two rounds, closes, evaluations: all were tried.
    assert number >= 10
