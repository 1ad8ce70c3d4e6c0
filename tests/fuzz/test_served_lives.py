"""Whatever phones, links and kills do to a run, it ends once they leave it alone, and each update counts once.

A life is led by its seed alone: `played(folder, seed, …)` of a seed that failed tells it again in `World.story`.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from .budget import THOROUGH, TOTAL, count
from .served_life import played

GRID = "exact(0) | flat | rotate_shared | grid(4)"
RUNS: dict[str, dict[str, Any]] = {
    "all": {"rounds": 4},
    "over-selected": {"rounds": 4, "cohort": 3, "over_select": 1.4, "quorum": 2},
    "few": {"rounds": 4, "cohort": 2, "max_retries": 1},
    "quorum": {"rounds": 4, "quorum": 2, "min_updates": 2},
    "chain": {"rounds": 4, "cohort": 3, "downlink": "rotate | eden(4)"},
    "when chosen": {"rounds": 5, "cohort": 2, "connect": "when-chosen"},
    "async": {"rounds": 5, "mode": "async", "buffer": 2},
    "async, few": {"rounds": 5, "mode": "async", "buffer": 2, "cohort": 2, "max_retries": 1},
    "circles": {"rounds": 3, "uplink": GRID, "circle": 2, "cohort": 3, "over_select": 1.4, "max_retries": 1},
    "masked": {
        "rounds": 3, "uplink": GRID, "secure": True, "circle": 5, "cohort": 5, "over_select": 1.3, "quorum": 3,
        "unmask_deadline": 20.0, "max_retries": 1,
    },
    "gateways": {"rounds": 3, "gateways": 2},
}  # fmt: skip
SEEDS = max(4, TOTAL // 3000)
CHAOS_S = (20.0, 60.0, 150.0, 400.0)


@pytest.mark.parametrize("kind", RUNS)
def test_run_ends_and_each_update_counts_once_whatever_was_before(kind: str, tmp_path: Path) -> None:
    settings = RUNS[kind]
    summed = "uplink" in settings or "gateways" in settings
    first = int(time.time()) if THOROUGH else 0
    for seed in range(first, first + SEEDS):
        count("lives of a served run")
        # Phones that the script leads send no sums: all others are the real ones, or half of them.
        phones, whole = 7 if "secure" in settings else 4, 99 if summed else seed // 2 % 2 * 2
        (folder := tmp_path / str(seed)).mkdir()
        world = played(folder, seed, settings, phones=phones, whole=whole, chaos_s=CHAOS_S[seed % 4])
        assert not world.faults, (seed, world.faults, world.story[-40:])


def test_update_announced_while_its_other_copy_is_summed_and_its_round_closed_counts_once(tmp_path: Path) -> None:
    world = played(tmp_path, 1795790478, RUNS["async"], phones=4, whole=2, chaos_s=CHAOS_S[2])
    assert not world.faults, (world.faults, world.story[-40:])


@pytest.mark.parametrize("seed", [106, 107, 142])
def test_phone_is_told_of_no_byte_that_its_older_connection_brings_behind_its_question(
    seed: int, tmp_path: Path
) -> None:
    world = played(tmp_path, seed, RUNS["all"], whole=seed // 2 % 2 * 2, chaos_s=CHAOS_S[seed % 4])
    assert not world.faults, (world.faults, world.story[-40:])
