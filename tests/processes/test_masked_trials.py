"""Masked rounds in the ways of asking that want not everybody, on real processes, with a server that is killed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.run_folder import existing
from featherfed.server.storage.store import Store
from tests.processes.trees import LISTENING, flags, programs

pytestmark = pytest.mark.processes
SETTINGS: dict[str, Any] = {
    "problem": "digits/lite", "phones": 16, "cohort": 10, "rounds": 3, "seed": 3, "secure": True,
    "uplink": "secure-4bit", "deadline": 60.0, "unmask_deadline": 10.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [
        {"over_select": 1.6},
        {"quorum": 7},
        {"over_select": 1.6, "quorum": 8, "circle": 8},
        {"connect": "when-chosen"},
        {"connect": "when-chosen", "quorum": 7},
    ],
    ids=str,
)
async def test_every_byte_of_a_masked_run_is_explained(tmp_path: Path, asked: dict[str, Any]) -> None:
    settings = {**SETTINGS, **asked}
    with programs(tmp_path) as started:
        served = ["serve", "--no-dashboard", "--log-format", "text"]
        started.start("server", *served, "--port", "0", "--runs", str(tmp_path), "--name", "run", *flags(settings))
        address = (await started.said("server", LISTENING))[1]
        with open(tmp_path / "swarm.log", "w") as log:
            swarm = subprocess.Popen(
                [sys.executable, "-m", "featherfed.edge_client.cli", "swarm", "--train", "none", "--server", address,
                 "--count", str(settings["phones"]), "--state-dir", str(tmp_path / "phones"), "--bandwidth", "2mbps",
                 # A run that ends while phones rest cannot tell them.
                 "--patience", "30s"],
                stdout=log, stderr=log,
            )  # fmt: skip
        started.running["swarm"] = swarm
        await started.said("server", r"^round 1/3")
        started.running["server"].kill()
        started.running["server"].wait()
        port = ["--port", address.rpartition(":")[2]]
        started.start("again", *served, "--resume", str(tmp_path / "run"), *port)
        assert await started.ended("again") == 0, started.log("again")
        await started.ended("swarm")
        left = re.findall(r"failed: (.*)", started.log("swarm"))
        # One that looked for its server while the last round ended has missed it.
        assert all(word.startswith("no server at") for word in left), left
    folder, config = existing(tmp_path / "run")
    store = Store(folder.database)
    try:
        updates, ledger, faults, rounds = store.updates(), Ledger(store.traffic()), store.faults(), store.rounds()
    finally:
        store.close()
    assert not faults
    assert [row.state for row in rounds] == ["closed"] * 3
    wanted = config.quorum or config.cohort
    for row in rounds:
        assert sum(update.counts_in == row.round for update in updates) >= wanted
    for shard in range(config.phones):
        total = ledger.total("uplink", shard=shard)
        kept = sum(update.size for update in updates if update.shard == shard and update.counts_in is not None)
        assert total.payload - total.resent - total.wasted == kept, f"shard {shard}"
