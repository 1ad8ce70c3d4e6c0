"""Links that break every 20 kB on average: what is sent again stays small, in both directions."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.edge_client import backoff
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from lab.chaos import tollgate
from lab.chaos.wiretap import Witness

Serve = Callable[..., Any]
MEAN_BYTES = 20_000


@pytest.mark.parametrize("seed", [1])
async def test_drop_every_20_kb_costs_less_than_15_percent_of_an_update_of_the_cnn(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    # A piece is what one drop cuts off: small, or loopback would carry a whole chunk at once.
    monkeypatch.setattr(tollgate, "PIECE_BYTES", 512)
    generator, drops = random.Random(seed), 0
    due = generator.expovariate(1 / MEAN_BYTES)

    def passed(total: int) -> None:
        nonlocal due, drops
        if gate.up_bytes >= due:
            due = gate.up_bytes + generator.expovariate(1 / MEAN_BYTES)
            drops += 1
            gate.reset("phone")

    witness = Witness()
    gate = tollgate.Tollgate(witness, passed)
    settings = {
        "phones": 1,
        "rounds": 3,
        "problem": "digits/cnn",
        "uplink": "rotate | eden(1)",
        "downlink": "rotate | eden(1)",
    }
    async with serve(**settings, eval_every=3) as served, asyncio.timeout(120):
        port = await gate.open(int(served.address.rpartition(":")[2]))
        options = PhoneOptions(
            server=f"ws://127.0.0.1:{port}",
            train=False,
            name="phone",
            state_dir=str(tmp_path / "phone"),
            profile=profile_from_flags(bandwidth="2mbps"),
        )
        await play_phone(options, lambda line: None)
        assert await served.ended is None
        totals = served.report()["totals"]
    await gate.close()
    up, down = totals["uplink"], totals["downlink"]
    size = up["theory"]
    assert drops > 25
    assert (witness.lost_bytes, witness.again_bytes) == (0, 0)
    assert up["payload"] - up["resent"] - up["wasted"] == size
    print(f"{drops} drops: {up['resent'] / size:.1%} up and {down['resent'] / size:.1%} down were sent again")
    assert 0 < up["resent"] < 0.15 * size
    assert down["payload"] - down["resent"] - down["wasted"] == down["theory"]
