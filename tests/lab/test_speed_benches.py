"""The benches of speed in a small size: they fail on wrong results, never on slow ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.children import environment
from lab.ingest import DOWNLINK, measure_server

pytestmark = pytest.mark.processes


def bench(*arguments: str) -> Any:
    command = [sys.executable, "-m", "lab", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ingest_takes_every_update_durable_and_not() -> None:
    result = bench("ingest", "--phones", "40", "--updates", "120", "--idle", "100", "--processes", "2")
    durable, memory = result["ingest"]
    assert (durable["durable"], memory["durable"]) == (True, False)
    for row in (durable, memory):
        assert row["updates"] == 120
        # 29,322 bits, and some bytes a tensor.
        assert 3666 < row["payload_bytes"] < 4000
        assert row["updates_per_s"] > 0 and row["cpu_ms_per_update"] > 0
        assert row["rss_at_rest"] <= row["rss_connected"] + (1 << 24)
    # It takes a turn after each of theirs.
    assert result["echo"]["messages_per_s"] > 0 and result["echo"]["turns"] == 6
    # Memory is no matter of speed.
    assert result["idle"]["bytes_per_phone"] < 80 * 1024


def test_memory_of_a_round_is_a_few_models_whatever_its_cohort() -> None:
    """Once it was 15 models of 6.7 MB and more: vectors in float64, and what the allocator kept of them."""
    model, above = 4 * 1_663_370, {}
    for phones in (4, 24):
        settings = {"problem": "digits/cnn", "phones": phones, "uplink": "rotate | eden(1)"}
        row = measure_server(
            {**settings, "downlink": DOWNLINK}, 3 * phones, 1, durable=True, data_dir=None, folder=None
        )
        # What each phone that sends has on the way: an update of 204 KiB, and a frame of it once more.
        above[phones] = row["rss_peak"] - row["rss_connected"] - phones * (270 << 10)
    assert max(above.values()) < 7.5 * model, above
    assert abs(above[24] - above[4]) < 2 * model, above


def test_training_measures_each_way() -> None:
    (row,) = bench("training", "--problems", "digits/2nn")["training"]
    assert row["parameters"] == 199_210
    assert all(row[name] > 0 for name in ("ours_us", "autograd_us", "vmap_us", "ours_mask(1/16)_us"))


def test_visits_measures_each_way_of_moving_images() -> None:
    (row,) = bench("visits", "--problems", "digits/tiny", "--epochs", "2", "--turns", "1")["visits"]
    assert row["examples"] == 480 and row["epochs"] == 2 and row["update_bytes"] > 100
    assert set(row["cpu_s"]) == {"plain", "shift=1", "warp=1", "warp=1 warp_epochs=3"}
    assert all(seconds > 0 for seconds in row["cpu_s"].values())


def test_swarm_is_ready_and_its_phones_share_their_memory() -> None:
    row = bench("swarm", "--count", "12", "--problem", "digits", "--workers", "2")["swarm"]
    assert (row["phones"], row["problem"]) == (12, "digits")
    # One phone alone needs some 300 MB, torch included.
    assert row["bytes_per_phone"] < 150e6


def test_performance_fills_the_tables_of_its_page(tmp_path: Path) -> None:
    page = tmp_path / "PERFORMANCE.md"
    page.write_text((Path(__file__).parents[2] / "docs" / "PERFORMANCE.md").read_text())
    result = bench("performance", "--part", "training", "--small", "--write", str(page))
    row = result["training"][0]
    assert f"| {row['problem']} | 29,322 | {row['autograd_us']:.0f} |" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ingest", "--problem", "digits/mlpp"], "unknown model 'mlpp'"),
        (["ingest", "--spec", "eden"], "eden"),
        (["training", "--problems", "digits/lita"], "unknown model 'lita'"),
    ],
)
def test_a_wrong_flag_is_one_sentence(arguments: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "lab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment())
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
