"""Trees whose phones' updates are summed in circles, masked or not: the model of one server, to the bit."""

import asyncio
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from featherfed.errors import ConfigError
from featherfed.gateway.round_exchange import News, RoundExchange
from featherfed.gateway.serving import GatewayStoppedError, gateway_config, gateway_rules
from featherfed.server.circle_plan import CirclePlan, CohortShare
from featherfed.server.config import config_from
from featherfed.wire.closing import Close
from featherfed.wire.messages import NOTHING, PROTOCOL_VERSION, Accepted, Cancel, Hello, Task, WholeUpdate
from tests.gateway.held import HeldPhones
from tests.gateway.trees import SETTINGS, address, gateway
from tests.server.peer import peer
from tests.serving import Recorder, serving

SUMMED: dict[str, Any] = {**SETTINGS, "phones": 12, "cohort": 12, "uplink": "secure-4bit", "downlink": "float32"}
MASKED = {**SUMMED, "secure": True}
ROWS = [range(6), range(6, 12)]
"""The shards of two gateways."""


def phones_of(settings: dict[str, Any]) -> HeldPhones:
    """Phones that send noise and wait for nothing."""
    phones = HeldPhones(settings, range(settings["phones"]), 1)
    phones.may.set()
    return phones


async def one_server(folder: Path, settings: dict[str, Any]) -> bytes:
    async with serving(folder, name="one", **settings) as alone:
        await asyncio.wait_for(asyncio.gather(*phones_of(settings).start([alone.address])), 60)
        assert await asyncio.wait_for(alone.ended, 30) is None
        return bytes(alone.folder.model.read_bytes())


@dataclass
class Played:
    """What a tree left: the root's model and report, the reports of its gateways, and what these said."""

    model: bytes
    report: dict[str, Any]
    below: list[dict[str, Any]]
    tolds: tuple[Recorder, Recorder]


async def two_gateways(folder: Path, settings: dict[str, Any]) -> Played:
    """Play a run on a root with two gateways."""
    folder.mkdir()
    async with (
        serving(folder, **{**settings, "gateways": 2}) as root,
        gateway(root.address, folder / "g0", 0, 2, **settings) as (first, told),
        gateway(root.address, folder / "g1", 1, 2, **settings) as (second, told_second),
    ):
        places = [await address(told, first), await address(told_second, second)]
        await asyncio.wait_for(asyncio.gather(*phones_of(settings).start(places)), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(asyncio.gather(first, second), 30)
        below = [report_of(folder / name) for name in ("g0", "g1")]
        return Played(root.folder.model.read_bytes(), root.report(), below, (told, told_second))


def report_of(folder: Path) -> dict[str, Any]:
    from featherfed.server.storage.report import make_report
    from featherfed.server.storage.run_folder import existing
    from featherfed.server.storage.store import Store

    run, config = existing(folder)
    store = Store(run.database)
    try:
        content: dict[str, Any] = make_report(run, config, store).content
    finally:
        store.close()
    return content


def in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one server deal the circles of the two gateways: steps follow from the sums of circles."""
    deal = CirclePlan.deal

    def by_row(
        self: CirclePlan, cohort: Sequence[int], seed: int, round_number: int, attempt: int
    ) -> tuple[tuple[int, ...], ...]:
        rows = [[shard for shard in cohort if shard in row] for row in ROWS]
        return tuple(circle for row in rows for circle in deal(self, row, seed, round_number, attempt))

    monkeypatch.setattr(CirclePlan, "deal", by_row)


async def test_masked_tree_is_the_unmasked_tree_and_one_server_with_its_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = await two_gateways(tmp_path / "masked", MASKED)
    plain = await two_gateways(tmp_path / "plain", SUMMED)
    with monkeypatch.context() as patch:
        in_rows(patch)
        alone = await one_server(tmp_path, SUMMED)
    assert masked.model == plain.model == alone
    report = masked.report
    assert [(row["cohort"], row["accepted"]) for row in report["rounds"]] == [(2, 2)] * 3
    assert (report["totals"]["uplink"]["masks"], report["totals"]["uplink"]["points"]) == (0, 0)
    for each in masked.below:
        assert each["totals"]["uplink"]["masks"] > 0 and each["totals"]["uplink"]["points"] > 0


async def test_first_round_of_a_tree_is_that_of_one_server_whatever_its_circles(tmp_path: Path) -> None:
    """Steps follow from the clip norm there, so that circles of other phones have the same sum."""
    settings = {**MASKED, "rounds": 1, "uplink": "exact(0) | flat | rotate_shared | grid(9)"}
    tree = await two_gateways(tmp_path / "tree", settings)
    models = [load(model) for model in (tree.model, await one_server(tmp_path, settings))]
    # What the sums say of the next steps depends on who is in a circle with whom.
    states = [model.pop("grid") for model in models]
    assert models[0].keys() == models[1].keys() and (states[0] != states[1]).any()
    assert all((models[0][name] == models[1][name]).all() for name in models[0])


async def test_tree_of_two_levels_is_the_tree_of_one_with_the_same_circles(tmp_path: Path) -> None:
    settings = {**MASKED, "phones": 15, "cohort": 15, "rounds": 2}
    models = []
    for masked in (False, True):
        folder, given = tmp_path / str(masked), {**settings, "secure": masked}
        folder.mkdir()
        async with (
            serving(folder, **{**given, "gateways": 1}) as root,
            gateway(root.address, folder / "middle", 0, 1, gateways=3, **given) as (middle, told),
        ):
            between = await address(told, middle)
            async with (
                gateway(between, folder / "g0", 0, 3, **given) as (first, told_first),
                gateway(between, folder / "g1", 1, 3, **given) as (second, told_second),
                gateway(between, folder / "g2", 2, 3, **given) as (third, told_third),
            ):
                tolds, playing = (told_first, told_second, told_third), (first, second, third)
                places = [await address(*each) for each in zip(tolds, playing, strict=True)]
                await asyncio.wait_for(asyncio.gather(*phones_of(given).start(places)), 60)
                assert await asyncio.wait_for(root.ended, 30) is None
                await asyncio.wait_for(asyncio.gather(middle, *playing), 30)
        models.append(root.folder.model.read_bytes())
    assert models[0] == models[1]


@pytest.mark.parametrize("round_number", [1, 2])
async def test_killed_gateway_goes_on_with_its_circles(tmp_path: Path, round_number: int) -> None:
    """Five updates of its circle are durable, the sixth is not."""
    calm = await two_gateways(tmp_path / "calm", MASKED)
    assert await killed_in_the_middle(tmp_path, MASKED, round_number, keep=True) == calm.model


@pytest.mark.parametrize("settings", [SUMMED, MASKED], ids=["summed", "masked"])
async def test_gateway_that_loses_its_disk_before_a_final_list_costs_no_update(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Phones mask what they have trained for another attempt; nobody trains twice."""
    calm = await two_gateways(tmp_path / "calm", settings)
    assert await killed_in_the_middle(tmp_path, settings, 2, keep=False) == calm.model


async def killed_in_the_middle(folder: Path, settings: dict[str, Any], round_number: int, *, keep: bool) -> bytes:
    """Return the model of a tree whose first gateway is killed when five of its six phones have uploaded in a round."""
    phones = HeldPhones(settings, ROWS[0], round_number)
    (folder / "tree").mkdir()
    async with (
        serving(folder, **{**settings, "gateways": 2}) as root,
        gateway(root.address, folder / "tree" / "g1", 1, 2, **settings) as (second, told_second),
    ):
        there = await address(told_second, second)
        async with gateway(root.address, folder / "tree" / "g0", 0, 2, **settings) as (first, told):
            place = await address(told, first)
            playing = phones.start([place, there])
            while sum(number == round_number for _, number, *_ in told.told("update_arrived")) < len(ROWS[0]) - 1:
                await asyncio.sleep(0.01)
        if not keep:
            shutil.rmtree(folder / "tree" / "g0")
        port = {"port": int(place.rpartition(":")[2])}
        async with gateway(root.address, folder / "tree" / "g0", 0, 2, entrance=port, **settings) as (first, _):
            phones.may.set()
            await phones.end(playing)
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        assert [row["accepted"] for row in root.report()["rounds"]] == [2] * 3
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * settings["cohort"], "nobody trained twice"
    return bytes(root.folder.model.read_bytes())


async def test_gateway_that_loses_its_disk_after_a_final_list_has_no_part_in_that_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its phones have told what opens a sum of theirs, and send nothing more before the next round."""
    phones, summed, held = phones_of(MASKED), threading.Event(), threading.Event()
    give = RoundExchange.give

    def lost(self: RoundExchange, round_number: int, total: bytes) -> News | None:
        if round_number == 2 and not summed.is_set() and self is not second_exchange:
            summed.set()
            held.wait(60)
            raise GatewayStoppedError
        return give(self, round_number, total)

    (tmp_path / "tree").mkdir()
    async with (
        serving(tmp_path, **{**MASKED, "gateways": 2}) as root,
        gateway(root.address, tmp_path / "tree" / "g1", 1, 2, **MASKED) as (second, told_second),
    ):
        there = await address(told_second, second)
        second_exchange = exchange_of(second)
        monkeypatch.setattr(RoundExchange, "give", lost)
        async with gateway(root.address, tmp_path / "tree" / "g0", 0, 2, **MASKED) as (first, told):
            place = await address(told, first)
            playing = phones.start([place, there])
            while not summed.is_set():
                await asyncio.sleep(0.01)
            asked = told.told("round_opened")[1][2]
        held.set()
        shutil.rmtree(tmp_path / "tree" / "g0")
        port = {"port": int(place.rpartition(":")[2])}
        async with gateway(root.address, tmp_path / "tree" / "g0", 0, 2, entrance=port, **MASKED) as (first, told):
            await phones.end(playing)
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        closed = {summary.round_number: summary.accepted for (summary,) in told.told("round_closed")}
        summaries = [summary for (summary,) in root.watcher.told("round_closed")]
    assert len(asked) == 6 and closed == {2: 0, 3: 6}
    assert [summary.phones for summary in summaries] == [12, 6, 12]
    assert sum(phones.trained.values()) == len(phones.trained) == 3 * 12, "nobody trained twice"


def exchange_of(serving_it: "asyncio.Task[str]") -> RoundExchange:
    coroutine = serving_it.get_coro()
    assert coroutine is not None
    exchange: RoundExchange = coroutine.cr_frame.f_locals["self"]._exchange  # type: ignore[union-attr]
    return exchange


@pytest.mark.parametrize("patient", [False, True], ids=["its own deadline", "the root's"])
async def test_phone_that_is_silent_is_missing_in_a_masked_tree_as_in_an_unmasked_one(
    tmp_path: Path, patient: bool
) -> None:
    """Its gateway sums the others; or the root goes on before that, and what has come is in no sum."""
    models, counts = [], []
    for settings in (SUMMED, MASKED):
        folder = tmp_path / str("secure" in settings)
        (folder / "tree").mkdir(parents=True)
        phones, brief = HeldPhones(settings, ROWS[0], 2), {**settings, "deadline": 4.0, "unmask_deadline": 1.0}
        theirs = {**brief, "deadline": 600.0} if patient else brief
        async with (
            serving(folder, **{**brief, "gateways": 2}) as root,
            gateway(root.address, folder / "g0", 0, 2, **theirs) as (first, told),
            gateway(root.address, folder / "g1", 1, 2, **theirs) as (second, told_second),
        ):
            playing = phones.start([await address(told, first), await address(told_second, second)])
            await asyncio.wait_for(asyncio.gather(*playing), 60)
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
            counts.append([summary.phones for (summary,) in root.watcher.told("round_closed")])
        models.append(root.folder.model.read_bytes())
    assert counts == [[12, 6 if patient else 11, 12]] * 2
    assert models[0] == models[1]


async def test_share_of_a_cohort_below_a_circle_sends_nothing_and_says_so(tmp_path: Path) -> None:
    settings = {**MASKED, "cohort": 10, "seed": 4}
    rules = gateway_rules(gateway_config(config_from(settings), (0, 2)), 0, 2)
    assert [rules.asked(number) for number in (1, 2, 3)] == [6, 4, 6]
    tree = await two_gateways(tmp_path / "tree", settings)
    told = tree.tolds[0]
    assert [row["accepted"] for row in tree.below[0]["rounds"]] == [6, 0, 6]
    assert [note for (note,) in told.told("note")] == [
        "round 2 asks 4 phones of this gateway, fewer than the 5 of a masked circle: they send nothing"
    ]


def test_gateways_that_have_too_few_of_a_cohort_are_refused() -> None:
    config = config_from({"phones": 100, "cohort": 20, "uplink": "secure-4bit", "secure": True})
    with pytest.raises(ConfigError, match=r"of the 20 phones that a round asks one of 5 has 4; ask more \(--cohort\)"):
        gateway_config(config, (0, 5))
    assert str(CohortShare.of(config, 4)).startswith("of 20 phones a round asks 5 of each gateway's in the mean")
    assert gateway_config(config, (0, 4)).deadline == 0.9 * config.deadline - config.unmask_deadline


def test_chance_of_a_share_below_a_circle_is_that_of_draws() -> None:
    config = config_from({"phones": 20, "cohort": 12, "uplink": "secure-4bit", "secure": True})
    rules = gateway_rules(gateway_config(config, (0, 2)), 0, 2)
    few = sum(rules.asked(number) < 5 for number in range(1, 2001))
    assert abs(few / 2000 - CohortShare.of(config, 2).below) < 0.03


async def test_attempt_of_the_root_asks_nothing_of_phones_that_are_in_circles(tmp_path: Path) -> None:
    """The root asks a gateway once more that is in the middle of the round: its circles stay, and nobody masks anew."""
    calm = await two_gateways(tmp_path / "calm", MASKED)
    patient, brief = {**MASKED, "deadline": 600.0}, {**MASKED, "deadline": 2.0, "min_updates": 2}
    phones, folder = HeldPhones(MASKED, ROWS[0], 2), tmp_path / "tree"
    folder.mkdir()
    async with (
        serving(folder, **{**brief, "gateways": 2}) as root,
        gateway(root.address, folder / "g0", 0, 2, **patient) as (first, told),
        gateway(root.address, folder / "g1", 1, 2, **patient) as (second, told_second),
    ):
        playing = phones.start([await address(told, first), await address(told_second, second)])
        while not any(number == 2 and attempt for number, attempt, _ in root.watcher.told("round_opened")):
            await asyncio.sleep(0.01)
        phones.may.set()
        await asyncio.wait_for(asyncio.gather(*playing), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(asyncio.gather(first, second), 30)
    assert root.folder.model.read_bytes() == calm.model
    assert [(number, attempt) for number, attempt, _ in told.told("round_opened")] == [(1, 0), (2, 0), (3, 0)]


async def test_partial_sum_of_another_round_is_refused_and_another_one_of_the_same_round(tmp_path: Path) -> None:
    """As from a gateway that replays what it sent, and one that would send another sum than it has sent."""
    settings = {**MASKED, "phones": 6, "cohort": 6, "gateways": 1, "rounds": 2, "uplink": "subspace(300) | grid(5)"}
    async with serving(tmp_path, **settings) as root:
        async with peer(root.address) as liar:
            await liar.join("gateway-0", shard=0, shards=1)
            task = await liar.receive_until(Task)
            assert isinstance(task, Task) and task.steps and not task.life
            nobodys = root.aggregator.sum.circles.take_partial()
            root.aggregator.sum.open(1)
            await liar.send(WholeUpdate(1, nobodys))
            await liar.receive_until(Accepted)
            while root.service.state.round_number < 2:
                await asyncio.sleep(0.01)
            await liar.send(WholeUpdate(2, nobodys))
            code, sentence = await asyncio.wait_for(liar.closed(), 30)
            assert code == Close.PAYLOAD and sentence.startswith("a partial sum of another round")
        async with peer(root.address) as liar:
            await liar.join("gateway-0", shard=0, shards=1)
            await liar.send(WholeUpdate(1, nobodys[:-1] + b"\1"))
            assert await liar.receive_until(Cancel) == Cancel(1)
        assert root.service.state.accepted == frozenset()


async def test_root_counts_the_lives_of_gateways_that_lost_their_memory_and_keeps_the_count(tmp_path: Path) -> None:
    settings = {**MASKED, "phones": 6, "cohort": 6, "gateways": 1}

    async def life(root: Any, run: str) -> int:
        async with peer(root.address) as one:
            hello = Hello(PROTOCOL_VERSION, "gateway-0", 0, 1, run=run, held_version=0 if run else NOTHING)
            await one.send(hello)
            task = await asyncio.wait_for(one.receive_until(Task), 30)
            assert isinstance(task, Task)
            return task.life

    async with serving(tmp_path, **settings) as root:
        run = root.watcher.told("listening")[0][1]
        assert [await life(root, known) for known in ("", run, "", run, "", "")] == [0, 0, 1, 1, 2, 3]
    async with serving(tmp_path, resume=True) as root:
        assert [await life(root, known) for known in (run, "")] == [3, 4]


async def test_gateway_whose_circle_fails_masks_what_came_anew_before_its_root_goes_on(tmp_path: Path) -> None:
    """Seven of twelve are too few for their circle, and enough for another one."""
    settings = {**MASKED, "deadline": 12.0, "unmask_deadline": 1.0}
    phones = HeldPhones(settings, range(12), 2)
    phones.also = {(2, shard) for shard in range(4)}
    # Each that is held holds a thread.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(24))
    async with (
        serving(tmp_path, **{**settings, "gateways": 1}) as root,
        gateway(root.address, tmp_path / "g0", 0, 1, **settings) as (only, told),
    ):
        await asyncio.wait_for(asyncio.gather(*phones.start([await address(told, only)])), 60)
        assert await asyncio.wait_for(root.ended, 30) is None
        await asyncio.wait_for(only, 30)
    assert [summary.phones for (summary,) in root.watcher.told("round_closed")] == [12, 7, 12]
    assert [(number, attempt) for number, attempt, _ in told.told("round_opened")] == [(1, 0), (2, 0), (2, 1), (3, 0)]


def test_gateway_of_a_run_with_differential_privacy_is_refused() -> None:
    """Its root has no noise to add, and would take a sum without any."""
    config = config_from({"phones": 20, "dp": "central", "clip_norm": 1.0, "noise_multiplier": 1.0})
    with pytest.raises(ConfigError, match="--dp central adds noise to one sum, and --gateway 0/2 hands up one of"):
        gateway_config(config, (0, 2))
