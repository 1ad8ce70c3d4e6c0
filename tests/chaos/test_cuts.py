"""One phone, one gate: a connection broken at a chosen byte of a transfer, in each way that there is."""

import asyncio
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client import backoff
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from lab.chaos.schedule import ENDS, WAYS, transfer_bytes
from lab.chaos.tollgate import Break, How, Tollgate
from lab.chaos.wiretap import Witness

Serve = Callable[..., Any]
HOWS: tuple[How, ...] = ("rst", "fin", "silence")
RUN = {"phones": 1, "rounds": 4, "eval_every": 4, "heartbeat": 0.3}


async def played(serve: Serve, folder: Path, name: str, breaks: list[Break], **settings: Any) -> tuple[bytes, Tollgate]:
    witness = Witness()
    gate = Tollgate(witness, lambda total: None)
    for fault in breaks:
        gate.arm("phone", fault)
    try:
        async with serve(name=name, **RUN, **settings) as served, asyncio.timeout(60):
            port = await gate.open(int(served.address.rpartition(":")[2]))
            options = PhoneOptions(
                server=f"ws://127.0.0.1:{port}", train=False, name="phone", state_dir=str(folder / f"{name}-phone")
            )
            await play_phone(options, lambda line: None)
            assert await served.ended is None
            up = served.report()["totals"]["uplink"]
            counted = sum(update.size for update in served.store.updates())
            model = served.folder.model.read_bytes()
    finally:
        await gate.close()
    assert up["payload"] - up["resent"] - up["wasted"] == counted
    assert (witness.lost_bytes, witness.again_bytes) == (0, 0)
    return model, gate


@pytest.mark.parametrize(
    ("model", "uplink", "downlink"), [("2nn", "float32", "float32"), ("cnn", "vertex-small", "eden-1bit")]
)
async def test_transfer_cut_at_any_byte_in_any_way_ends_in_the_calm_run_s_model(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, uplink: str, downlink: str
) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    generator = random.Random(model)
    problem = f"digits/{model}"
    settings = {"problem": problem, "uplink": uplink, "downlink": downlink}
    sizes = {"up": transfer_bytes(uplink, problem), "down": transfer_bytes(downlink, problem, direction="downlink")}
    # Each round's transfers are cut three times on an average, so that what was cut is cut again.
    breaks = [
        Break(how, way, at, generator.randrange(2 * sizes[way] // 3))
        for how, way, at in itertools.product(HOWS, WAYS, ENDS)
    ]
    generator.shuffle(breaks)
    calm, _ = await played(serve, tmp_path, "calm", [], **settings)
    broken, gate = await played(serve, tmp_path, "broken", breaks, **settings)
    assert broken == calm
    assert gate.breaks == {"rst": 4, "fin": 4, "silence": 4, "kill": 0}
    # A stream that was ended at its sender alone may still carry the transfer's last bytes.
    assert gate.cut["up"] >= 5
    assert gate.cut["down"] >= 5
