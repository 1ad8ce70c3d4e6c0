"""A tree on a real local Ray cluster of two nodes, whose gateways die by kill -9 and with their node."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.gateway.held import HeldPhones
from tests.gateway.trees import SETTINGS
from tests.processes.trees import flags, programs
from tests.serving import serving

ray = pytest.importorskip("ray", reason="needs ray: pip install 'featherfed[ray]'")
pytestmark = [pytest.mark.processes, pytest.mark.filterwarnings("ignore")]
GATEWAY = r"^gateway {} serves shards \d+ to \d+ at (\S+) \(process (\d+) on (\S+)\)"


@pytest.fixture
def cluster(ray_turn: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 2, "object_store_memory": 80_000_000}
    # The loss of a node is found in some seconds, in place of a quarter of a minute. With three checks and not ten, a
    # busy machine loses the node that is there, too.
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 10}
    head = {"include_dashboard": False, "_system_config": quick, **node}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(**node)
    yield made
    made.shutdown()


def runs_on(node: Any, worker: int) -> bool:
    """Return whether the raylet of a node started this worker."""
    parents = {process.pid for process in psutil.Process(worker).parents()}
    return any(info.process.pid in parents for info in node.all_processes["raylet"])


async def test_gateways_on_ray_survive_kill_9_without_their_disk_and_the_loss_of_a_node(
    tmp_path: Path, cluster: Any
) -> None:
    calm = HeldPhones(SETTINGS, range(3), 2)
    async with serving(tmp_path / "calm", **SETTINGS) as served:
        calm.may.set()
        await asyncio.gather(*calm.start([served.address]))
        assert await served.ended is None
    with programs(tmp_path) as started:
        started.start("tree", "tree", "--ray", cluster.address, "--port", "0", "--gateway-port", "0", "--no-dashboard",
                      "--runs", str(tmp_path), "--name", "run", *flags({**SETTINGS, "gateways": 2}))  # fmt: skip
        told = [await started.said("tree", GATEWAY.format(index)) for index in (0, 1)]
        # One on each node: that on the head is killed, and the other's node goes.
        (node,) = cluster.worker_nodes
        (lost,) = [index for index in (0, 1) if runs_on(node, int(told[index][2]))]
        killed = 1 - lost
        phones = HeldPhones(SETTINGS, range(3 * killed, 3 * killed + 3), 2)
        playing = phones.start([told[0][1], told[1][1]])
        await asyncio.wait_for(phones.in_the_middle(), 60)
        # On a machine of its own it would find no folder where it comes back.
        shutil.rmtree(tmp_path / "run" / f"gateway-{killed}")
        os.kill(int(told[killed][2]), signal.SIGKILL)
        again = await started.said("tree", GATEWAY.format(killed), count=2)
        cluster.remove_node(node, allow_graceful=False)
        moved = await started.said("tree", GATEWAY.format(lost), count=2)
        assert (again[1], moved[1]) == (told[killed][1], told[lost][1]), "phones find them where they were"
        phones.may.set()
        await phones.end(playing)
        assert await started.ended("tree") == 0
        log = started.log("tree")
    assert re.findall(r"^round (\d)/3  gateways (\d/\d)  updates (\d)", log, re.MULTILINE) == [
        (str(number), "2/2", "4") for number in (1, 2, 3)
    ]
    one = tmp_path / "calm" / "run" / "model.safetensors"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one.read_bytes()
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * SETTINGS["cohort"], "nobody trained twice"
