"""Every stage and every preset, up and down, between a real server and real phones."""

from pathlib import Path

import pytest

from featherfed.codec.grammar import OURS, PRESETS
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import SpecError
from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.processes import Processes

pytestmark = pytest.mark.processes
TIMEOUT_S = 120.0
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
def test_run_with_every_stage_and_preset(tmp_path: Path, uplink: str, downlink: str) -> None:
    settings = [
        "--runs", str(tmp_path), "--name", "a", "--problem", "digits", "--phones", str(PHONES), "--rounds", "2",
        "--uplink", uplink, "--downlink", downlink, "--no-dashboard",
    ]  # fmt: skip
    with Processes(tmp_path / "logs") as processes:
        address = processes.start_server(settings, lambda event: None)
        swarm = ["--server", address, "--count", str(PHONES), "--workers", "1", "--train", "none"]
        phones = processes.start_phone("swarm", swarm, "swarm")
        assert processes.wait_for_server(TIMEOUT_S) == 0
        assert phones.wait(TIMEOUT_S) == 0
    report = report_of(tmp_path / "a")
    assert [(row["state"], row["accepted"], row["failed"]) for row in report["rounds"]] == [("closed", PHONES, 0)] * 2
    for row in report["rounds"]:
        assert row["uplink"]["payload"] > 0
        assert 0 <= row["accuracy"] <= 1
