"""The sum of circles whose phones add noise: its variance is theirs, and under it are their updates."""

import random
from typing import Any

import numpy as np
import pytest

from featherfed.codec.steps import size_of
from featherfed.edge_client.private_update import private_residues
from featherfed.server.config import RunConfig
from featherfed.server.model.circle_sums import CircleSums
from featherfed.server.model.run_rules import uplinks_of
from featherfed.wire.messages import Circle
from tests import layouts

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

LAYOUT = layouts.LAYOUTS["tiny"]
UPLINK = "exact(0) | flat | rotate_shared | grid(13)"
COHORT, CIRCLES = 30, 3
CONFIG = RunConfig(
    phones=60, cohort=COHORT, uplink=UPLINK, dp="distributed", secure=True, circle=10, clip_norm=0.5,
    noise_multiplier=1.0, delta=1e-3,
)  # fmt: skip


def mean_of(updates: np.ndarray, seed: int) -> tuple[np.ndarray, CircleSums]:
    """Return the mean of a round whose phones' updates are these, in three circles of ten."""
    sums = CircleSums.of(CONFIG, uplinks_of(CONFIG), LAYOUT)
    assert sums is not None
    sums.open(1)
    members, source = COHORT // CIRCLES, random.Random(seed).randbytes
    for number in range(CIRCLES):
        shards = tuple(range(number * members, (number + 1) * members))
        circle = Circle(1, 0, number, 0, 1, 6, 9, sums.steps, list(shards))
        total: Any = 0
        for shard in shards:
            told = layouts.welcome(
                "run", model="tiny", shard=shard, shards=60, clip=0.5, uplink=UPLINK, bounded=True, noise=1.0,
                colluding=0.1, masked=True,
            )  # fmt: skip
            sent = private_residues(sums.uplink.first, updates[shard], circle, told, source)
            total = total + sent.astype(np.int64)
        sums.add(number, total, shards)
    (mean,) = sums.take().rows
    return mean, sums


def test_variance_of_the_mean_is_that_of_all_phones_noise() -> None:
    """Within 3 %: of 2 × 7,946 coordinates, four standard errors are 3.2 % of a variance."""
    zeros = np.zeros((COHORT, LAYOUT.size), np.float32)
    means = [mean_of(zeros, seed) for seed in range(2)]
    sums = means[0][1]
    noise = sums.noise_of(1)
    assert noise is not None
    step = size_of(sums.steps[0]) * 0.5
    wanted = COHORT * (noise.sigma(10) * step / COHORT) ** 2
    assert np.mean([mean**2 for mean, _ in means]) == pytest.approx(wanted, rel=0.04)
    # Each circle alone has the promised noise: of nine survivors eight are counted on.
    assert 8 * noise.sigma(10) ** 2 >= noise.fitted.bound.squared


def test_under_the_noise_is_the_mean_of_clipped_updates() -> None:
    generator = np.random.default_rng(0)
    common = generator.normal(0, 1, LAYOUT.size)
    updates = (common * 3 + generator.normal(0, 0.3, (COHORT, LAYOUT.size))).astype(np.float32)
    mean, _ = mean_of(updates, 0)
    clipped = np.mean([0.5 * each / np.linalg.norm(each) for each in updates], axis=0)
    along = float(mean @ clipped / np.linalg.norm(clipped) ** 2)
    deviation = np.std(mean - clipped) / np.linalg.norm(clipped)
    assert abs(along - 1) < 4.5 * deviation
