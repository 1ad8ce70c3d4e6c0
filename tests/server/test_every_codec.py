"""Every stage and every preset, up and down, between a server and phones on real sockets."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from featherfed.codec.grammar import OURS, PRESETS
from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import SpecError

PHONES = 2

SENT = {name: spec for name, spec in PRESETS.items() if not Pipeline.parse(spec).summed}
"""Presets of single updates: sums have rounds of their own."""
# An update's spec beside a model's: together they are all presets and all stages, in as few servers as that takes.
PAIRS = [
    *zip(
        SENT,
        [
            "konecny-256x", "eden-1bit", "eden-half", "eden-tiny", "vertex-tiny", "vertex-small",
            "shared-2bit", "shared-4bit", "qsgd-4bit", "topk(1/20) | ternary | entropy", "sign",
            "float16", "bfloat16", "quantize(8)",
        ],
        strict=True,
    ),
    ("float32", "topk(1/4)"),
    ("float16", "rotate | quantize(4) | entropy"),
    ("bfloat16", "exact(10) | float32"),
]  # fmt: skip


def test_pairs_are_every_stage_and_preset() -> None:
    used = [stage.name for up, _ in PAIRS for stage in Pipeline.parse(up).stages]
    assert set(used) == {stage.name for stage in OURS if not stage.summed}
    down = {down for _, down in PAIRS}
    for name, spec in SENT.items():
        try:
            Pipeline.parse(spec, direction="downlink")
        except SpecError:
            assert name not in down
        else:
            assert name in down


@pytest.mark.parametrize(("uplink", "downlink"), PAIRS)
async def test_run_with_every_stage_and_preset(serve: Callable[..., Any], uplink: str, downlink: str) -> None:
    async with serve(problem="digits/lite", rounds=2, uplink=uplink, downlink=downlink) as served:
        phones = [PhoneOptions(server=served.address, train=False, name=f"p{number}") for number in range(PHONES)]
        told = await asyncio.gather(*(play_phone(phone, lambda line: None) for phone in phones))
        assert told == ["all 2 rounds are done"] * PHONES
        assert await served.ended is None
        report = served.report()
    assert [(row["state"], row["accepted"], row["failed"]) for row in report["rounds"]] == [("closed", PHONES, 0)] * 2
    for row in report["rounds"]:
        assert row["uplink"]["payload"] > 0
        assert 0 <= row["accuracy"] <= 1
