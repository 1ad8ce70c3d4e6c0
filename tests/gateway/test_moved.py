"""A gateway whose disk is gone, in the middle of a round: real phones bring back what it had."""

import asyncio
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_client.learner import Learner, NoiseLearner, Trained
from edge_client.one_phone import PhoneOptions, play_phone
from featherfed.wire.messages import Task, Welcome
from server.cohort import choose_cohort
from tests.gateway.trees import SETTINGS, address, gateway
from tests.serving import serving

ROW = range(3)
"""The shards of the gateway that moves."""
MOVES = [(1, "rotate | eden(1)"), (2, "feedback | topk(1/10) | ternary"), (2, "subsample(1/4) | rotate | eden(1)")]
"""In which round, and with which uplink."""


class HeldLearner(NoiseLearner):
    """Sends noise, and that of one shard in one round only when it may."""

    def __init__(
        self, welcome: Welcome, held: tuple[int, int], may: threading.Event, trained: Counter[tuple[int, int]]
    ):
        super().__init__(welcome)
        self._held, self._may, self._trained = held, may, trained

    def train(
        self, weights: npt.NDArray[np.float32], task: Task, residual: npt.NDArray[np.float32] | None,
        stopped: Callable[[], bool],
    ) -> Trained | None:  # fmt: skip
        place = (task.round, self._welcome.shard)
        while place == self._held and not self._may.wait(0.01):
            if stopped():
                return None
        self._trained[place] += 1
        return super().train(weights, task, residual, stopped)


def phones(
    servers: list[str], count: int, learn: Callable[[PhoneOptions, Welcome], Learner]
) -> list[asyncio.Task[str]]:
    return [
        asyncio.create_task(
            play_phone(
                PhoneOptions(server=servers[0], others=tuple(servers[1:]), train=False, name=f"p{number}"),
                lambda line: None, learn=learn,
            )
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(("round_number", "uplink"), MOVES)
async def test_gateway_without_its_disk_costs_no_round_and_no_training(
    tmp_path: Path, round_number: int, uplink: str
) -> None:
    settings = {**SETTINGS, "uplink": uplink}
    trained: Counter[tuple[int, int]] = Counter()
    cohort = choose_cohort(range(6), settings["cohort"], seed=settings["seed"], round_number=round_number, attempt=0)
    asked = [shard for shard in cohort if shard in ROW]
    assert len(asked) > 1, "one of them has sent its update, another has not"
    may = threading.Event()

    def learn(options: PhoneOptions, welcome: Welcome) -> Learner:
        return HeldLearner(welcome, (round_number, asked[-1]), may, trained)

    async with serving(tmp_path / "one", **settings) as served:
        may.set()
        await asyncio.gather(*phones([served.address], 6, learn))
        assert await served.ended is None
    may.clear()
    trained.clear()
    (tmp_path / "tree").mkdir()
    async with (
        serving(tmp_path, **{**settings, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "tree" / "g1", 1, 2, **settings) as (second, told_second),
    ):
        there = await address(told_second, second)
        async with gateway(root.address, tmp_path / "tree" / "g0", 0, 2, **settings) as (first, told):
            place = await address(told, first)
            playing = phones([place, there], 6, learn)
            counted = {(shard, round_number) for shard in asked[:-1]}
            while not counted <= {given[:2] for given in told.told("update_accepted")}:
                await asyncio.sleep(0.005)
        shutil.rmtree(tmp_path / "tree" / "g0")
        port = int(place.rpartition(":")[2])
        moved = gateway(root.address, tmp_path / "tree" / "g0", 0, 2, entrance={"port": port}, **settings)
        async with moved as (first, _):
            may.set()
            assert await asyncio.wait_for(asyncio.gather(*playing), 60) == ["all 3 rounds are done"] * 6
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        rounds = root.report()["rounds"]
    one = tmp_path / "one" / "run" / "model.safetensors"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == one.read_bytes()
    assert [row["accepted"] for row in rounds] == [2] * 3
    assert sum(trained.values()) == len(trained) == 3 * settings["cohort"], "nobody trained twice"
