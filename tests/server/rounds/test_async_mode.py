"""FedBuff on real sockets: versions for every K updates, staleness in the weights, the same guarantees."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featherfed.by_round import ByRound
from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import ConfigError
from featherfed.randomness import RoundKey
from featherfed.server.config import RunConfig
from featherfed.server.model.staleness import UNIT, stale_weight
from featherfed.server.rounds.async_machine import AsyncState, advance
from featherfed.server.rounds.events import Deadline, OpenRound, Resume
from featherfed.server.rounds.round_machine import Phase, Rules
from featherfed.wire.messages import Accepted, Finish
from tests.layouts import LAYOUTS
from tests.server.peer import Peer, peer

Serve = Callable[..., Any]
WAIT_S = 30.0


async def finish(served: Any) -> str | None:
    outcome: str | None = await asyncio.wait_for(served.ended, WAIT_S)
    return outcome


async def accepted(phone: Peer, round_number: int) -> None:
    assert await phone.receive_until(Accepted) == Accepted(round_number)


@pytest.mark.parametrize(
    ("downlink", "leftover"), [("rotate | eden(4)", "keep"), ("lattice(1)", "0.5"), ("fresh | eden-1bit", "drop")]
)
async def test_whole_phones_play_an_asynchronous_run(serve: Serve, downlink: str, leftover: str) -> None:
    settings = {"mode": "async", "phones": 4, "buffer": 2, "rounds": 6, "uplink": "rotate | eden(1)"}
    async with serve(**settings, downlink=downlink, leftover=leftover) as served:
        options = [PhoneOptions(server=served.address, train=False, name=f"p{number}") for number in range(4)]
        ends = await asyncio.wait_for(asyncio.gather(*(play_phone(one, lambda line: None) for one in options)), WAIT_S)
        assert await finish(served) is None
        report = served.report()
    assert ends == ["all 6 rounds are done"] * 4
    assert all(row["state"] == "closed" and row["accepted"] >= 2 for row in report["rounds"])
    up = report["totals"]["uplink"]
    counted = sum(row["accepted"] for row in report["rounds"])
    size = Pipeline.parse("rotate | eden(1)").theory_bytes(LAYOUTS["lite"])
    assert up["payload"] - up["resent"] - up["wasted"] == counted * round(size)


async def test_stale_update_weighs_less_and_shortens_the_step(serve: Serve) -> None:
    async with serve(mode="async", phones=2, cohort=2, buffer=1, rounds=2, uplink="rotate | eden(1)") as served:
        async with peer(served.address) as quick, peer(served.address) as slow:
            await quick.join("quick")
            await slow.join("slow")
            tasks = [await quick.task(), await slow.task()]
            assert [task.round for task in tasks] == [1, 1]
            before = served.aggregator._state.weights.copy()
            payloads = [quick.update(tasks[0]), slow.update(tasks[1])]
            await quick.upload(1, payloads[0])
            await accepted(quick, 1)
            assert (await quick.task()).round == 2
            first = served.aggregator._state.weights.copy()
            await slow.upload(1, payloads[1])
            await accepted(slow, 1)
            await slow.receive_until(Finish)
        assert await finish(served) is None
        second = served.aggregator._state.weights
    pipeline, layout = Pipeline.parse("rotate | eden(1)"), LAYOUTS["lite"]
    steps = [pipeline.decode(payload, layout, RoundKey(0, 1, shard)) for shard, payload in enumerate(payloads)]
    np.testing.assert_allclose(first - before, steps[0], atol=1e-7)
    np.testing.assert_allclose(second - first, steps[1] * (stale_weight(1, 1) / UNIT), atol=1e-7)


async def test_phone_trains_each_version_once_and_waits_for_the_next(serve: Serve) -> None:
    async with (
        serve(mode="async", phones=2, buffer=2, rounds=2) as served,
        peer(served.address) as quick,
        peer(served.address) as slow,
    ):
        await quick.join("quick")
        await slow.join("slow")
        tasks = [await quick.task(), await slow.task()]
        await quick.upload(1, quick.update(tasks[0]))
        await accepted(quick, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(quick.task(), 0.1)
        await slow.upload(1, slow.update(tasks[1]))
        await accepted(slow, 1)
        assert (await quick.task()).round == 2


async def test_update_of_an_old_round_counts_once_also_after_a_restart(serve: Serve) -> None:
    async with (
        serve(mode="async", phones=2, buffer=2, rounds=3) as served,
        peer(served.address) as quick,
        peer(served.address) as slow,
    ):
        await quick.join("quick")
        await slow.join("slow")
        quick_task, slow_task = await quick.task(), await slow.task()
        payload = slow.update(slow_task)
        await slow.upload(1, payload, upto=60_000)
        await quick.upload(1, quick.update(quick_task))
        await accepted(quick, 1)
        served.ended.cancel()
        await asyncio.wait({served.ended})
    async with serve(resume=True) as served:
        assert served.service.state.buffer == {(1, 0)}
        async with peer(served.address) as slow:
            await slow.join("slow")
            for _ in range(2):
                await slow.upload(1, payload)
                await accepted(slow, 1)
            while not served.watcher.told("round_closed"):
                await asyncio.sleep(0.001)
            assert served.watcher.told("round_closed")[0][0].accepted == 2
            up = served.service.ledger.total("uplink", shard=1)
            assert up.payload - up.resent - up.wasted == len(payload)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "asink"}, "unknown mode 'asink'; did you mean 'async'?"),
        ({"buffer": 3}, "--buffer 3 is for --mode async"),
        ({"mode": "async", "quorum": 3}, "--quorum 3 is for --mode sync"),
        ({"mode": "async", "buffer": 11}, "--buffer 11 exceeds the 10 phones that train at a time"),
        ({"mode": "async", "buffer": 3, "min_updates": 4}, "--min-updates 4 exceeds the 3 updates that close a round"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig(**settings)
    assert str(error.value).startswith(words)


def test_weights_follow_the_paper_to_a_thousandth_of_an_example() -> None:
    for examples in (1, 60, 600):
        for staleness in (0, 1, 5, 100):
            exact = examples / np.sqrt(1 + staleness)
            assert abs(stale_weight(examples, staleness) / UNIT - exact) <= 0.5 / UNIT


def test_resumed_run_whose_phones_have_all_failed_asks_them_once_more() -> None:
    """In each life a buffer is waited for anew, and nobody who failed before is left out of it."""
    rules = Rules(phones=2, rounds=3, cohort_size=ByRound(2), target=ByRound(1), min_updates=1, max_retries=1, seed=0)
    everyone = frozenset({0, 1})
    state = AsyncState(rules, Phase.OPEN, 1, 1, failed=everyone, present=everyone)
    state, actions = advance(state, Resume())
    assert actions == (OpenRound(1, 1, (0, 1)),)
    state, actions = advance(state, Deadline(1, 1))
    assert actions == (OpenRound(1, 2, (0, 1)),)
    assert advance(state, Deadline(1, 2))[0].phase is Phase.PAUSED
