"""The sum of a round with differential privacy: clipped once decoded, uniform, noised, divided by what was wanted."""

import random
from dataclasses import replace

import numpy as np
import pytest

from featherfed.codec import blocks, exact_sum
from featherfed.codec.exact_sum import FRACTION_BITS
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.threads import Threads
from featherfed.privacy.noise import Noise
from featherfed.randomness import RoundKey
from featherfed.rules.aggregates import Mean
from featherfed.server.config import RunConfig
from featherfed.server.model.round_sum import RoundSum
from featherfed.server.model.run_rules import uplinks_of
from tests.layouts import LAYOUTS

LAYOUT = LAYOUTS["lite"]
CONFIG = RunConfig(
    phones=20, cohort=4, uplink="float32", dp="central", clip_norm=0.25, noise_multiplier=0.5, delta=1e-3
)


def summed(config: RunConfig = CONFIG, seed: int | None = None, *, noise: bool = True) -> RoundSum:
    made = RoundSum(config, uplinks_of(config), LAYOUT, Mean(), max_examples=1000)
    assert made.noise is not None
    if not noise:
        made.noise = Noise(made.noise.sigma, source=None)  # type: ignore[arg-type]
        made.noise = _Silent()  # type: ignore[assignment]
    elif seed is not None:
        made.noise = Noise(made.noise.sigma, random.Random(seed).randbytes)
    made.open(1)
    return made


class _Silent:
    """Noise of nothing, to see what is under it."""

    def draw(self, size: int) -> np.ndarray:
        return np.zeros(size, np.int64)


def update(shard: int, norm: float) -> np.ndarray:
    values = np.random.default_rng(shard).normal(0, 1, LAYOUT.size)
    return (values * (norm / np.linalg.norm(values))).astype(np.float32)


def add(to: RoundSum, shard: int, values: np.ndarray, examples: int = 1) -> None:
    pipeline = Pipeline.parse(CONFIG.uplink)
    key = RoundKey(CONFIG.seed, 1, shard)
    to.add(1, shard, pipeline.encode(values, LAYOUT, key).payload, examples)


def test_long_update_is_clipped_once_decoded_whatever_the_phone_did() -> None:
    total = summed(noise=False)
    add(total, 0, update(0, 50.0))
    (mean,) = total.take_updates().rows
    assert np.linalg.norm(mean) == pytest.approx(0.25 / 4, rel=1e-5)


def test_clipped_updates_are_added_to_the_same_bits_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_sum, "EACH", 1)
    monkeypatch.setattr(blocks, "RUN", 8192)
    sums = []
    for threads in (1, 3):
        total = RoundSum(CONFIG, uplinks_of(CONFIG), LAYOUT, Mean(), max_examples=1000)
        total.prepare(Threads(threads))
        total.open(1)
        for shard in range(4):
            add(total, shard, update(shard, 50.0))
        sums.append(total.take_partial())
    assert sums[0] == sums[1]


def test_phones_count_alike_whatever_they_say_of_their_examples() -> None:
    total = summed(noise=False)
    for shard, examples in enumerate((1, 1000, 10, 500)):
        add(total, shard, update(shard, 0.2), examples)
    (mean,) = total.take_updates().rows
    assert np.allclose(mean, np.mean([update(shard, 0.2) for shard in range(4)], axis=0), atol=1e-8)


def test_sum_is_divided_by_what_the_round_wants_and_not_by_who_came() -> None:
    total = summed(noise=False)
    add(total, 0, update(0, 0.2))
    (mean,) = total.take_updates().rows
    assert np.allclose(mean, update(0, 0.2) / 4, atol=1e-9)


def test_noise_has_the_deviation_that_the_account_assumes() -> None:
    without, with_noise = summed(noise=False), summed(seed=5)
    for total in (without, with_noise):
        for shard in range(4):
            add(total, shard, update(shard, 0.2))
    noise = with_noise.take_updates().rows[0].astype(np.float64) - without.take_updates().rows[0]
    wanted = 0.5 * 0.25 / 4
    # Of 29,322 draws: four standard errors of their variance.
    assert noise.var() == pytest.approx(wanted**2, rel=4 * np.sqrt(2 / LAYOUT.size))
    assert with_noise.noise is not None
    assert with_noise.noise.sigma == pytest.approx(0.5 * 0.25 * (1 << FRACTION_BITS), rel=1e-5)


def test_same_seed_never_gives_the_same_noise() -> None:
    """The run's seed is public: noise that followed from it could be taken off again."""
    means = []
    for _ in range(2):
        total = summed()
        add(total, 0, update(0, 0.2))
        means.append(total.take_updates().rows[0])
    assert (means[0] != means[1]).mean() > 0.99


CODECS = (
    "eden-half", "vertex-small", "lowrank(1/4) | rotate | eden(1)", "feedback | topk(1/8)",
    "rotate_shared | quantize(2)",
)  # fmt: skip


@pytest.mark.parametrize("uplink", CODECS)
def test_one_phone_moves_a_sum_by_the_clip_norm_whatever_the_codec(uplink: str) -> None:
    config = replace(CONFIG, uplink=uplink)
    pipeline = Pipeline.parse(uplink)
    means = []
    for shards in ((0, 1), (0, 1, 2)):
        total = summed(config, noise=False)
        for shard in shards:
            key = RoundKey(config.seed, 1, shard)
            space = pipeline.space(LAYOUT, key)
            values = np.random.default_rng(shard).normal(0, 10, space.size).astype(np.float32)
            total.add(1, shard, pipeline.encode(values, LAYOUT, key).payload, 1)
        means.append(total.take_updates().rows[0].astype(np.float64) * 4)
    assert np.linalg.norm(means[1] - means[0]) <= 0.25 * (1 + 1e-5)
