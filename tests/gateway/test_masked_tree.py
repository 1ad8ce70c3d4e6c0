"""Trees whose phones' updates are summed in circles, masked or not: the model of one server, to the bit."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from featherfed.server.circle_plan import CirclePlan
from tests.gateway.held import HeldPhones
from tests.gateway.trees import SETTINGS, address, gateway
from tests.serving import serving

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


async def two_gateways(folder: Path, settings: dict[str, Any]) -> tuple[bytes, dict[str, Any], list[dict[str, Any]]]:
    """Return the root's model, its report, and the reports of its gateways."""
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
        return root.folder.model.read_bytes(), root.report(), [report_of(folder / name) for name in ("g0", "g1")]


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
    masked, report, below = await two_gateways(tmp_path / "masked", MASKED)
    plain, _, _ = await two_gateways(tmp_path / "plain", SUMMED)
    with monkeypatch.context() as patch:
        in_rows(patch)
        alone = await one_server(tmp_path, SUMMED)
    assert masked == plain == alone
    assert [(row["cohort"], row["accepted"]) for row in report["rounds"]] == [(2, 2)] * 3
    assert (report["totals"]["uplink"]["masks"], report["totals"]["uplink"]["points"]) == (0, 0)
    for each in below:
        assert each["totals"]["uplink"]["masks"] > 0 and each["totals"]["uplink"]["points"] > 0


async def test_first_round_of_a_tree_is_that_of_one_server_whatever_its_circles(tmp_path: Path) -> None:
    """Steps follow from the clip norm there, so that circles of other phones have the same sum."""
    settings = {**MASKED, "rounds": 1, "uplink": "exact(0) | flat | rotate_shared | grid(9)"}
    tree, _, _ = await two_gateways(tmp_path / "tree", settings)
    models = [load(model) for model in (tree, await one_server(tmp_path, settings))]
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
    calm, _, _ = await two_gateways(tmp_path / "calm", MASKED)
    assert await killed_in_the_middle(tmp_path, MASKED, round_number, keep=True) == calm


@pytest.mark.parametrize("settings", [SUMMED, MASKED], ids=["summed", "masked"])
async def test_gateway_that_loses_its_disk_before_a_final_list_costs_no_update(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Phones mask what they have trained for another attempt; nobody trains twice."""
    calm, _, _ = await two_gateways(tmp_path / "calm", settings)
    assert await killed_in_the_middle(tmp_path, settings, 2, keep=False) == calm


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
