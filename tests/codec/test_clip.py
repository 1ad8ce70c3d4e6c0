import math

import numpy as np
import pytest

from featherfed.codec.clip import clip
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.randomness import RoundKey

BIG = float(np.finfo(np.float32).max)


def test_short_updates_are_left_alone_and_long_ones_keep_their_direction() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    norm = float(np.linalg.norm(values))
    assert clip(values, 2 * norm) is values
    assert clip(values, math.inf) is values
    clipped = clip(values, norm / 100)
    assert np.linalg.norm(clipped) == pytest.approx(norm / 100, rel=1e-6)
    assert float(clipped @ values) == pytest.approx(norm * norm / 100, rel=1e-6)


def test_the_largest_floats_are_clipped_without_overflow() -> None:
    assert np.linalg.norm(clip(np.full(4, BIG, np.float32), 1.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("spec", ["float32", "rotate_shared | float32", "rotate_shared | stochastic(4)"])
def test_the_sum_of_clipped_updates_does_not_depend_on_their_order(spec: str, layout: Layout) -> None:
    pipeline = Pipeline.parse(spec)
    size = pipeline.space(layout, RoundKey(0, 1, 0)).size
    payloads = [
        pipeline.encode(
            np.random.default_rng(phone).standard_normal(size).astype(np.float32) * np.float32(10**phone),
            layout,
            RoundKey(0, 1, phone),
        ).payload
        for phone in range(4)
    ]

    def mean(order: list[int]) -> np.ndarray:
        fold = pipeline.fold(layout, RoundKey(0, 1), updates=4, clip_norm=2.0)
        for phone in order:
            fold.add(payloads[phone], RoundKey(0, 1, phone), phone + 1)
        return fold.mean()

    assert np.array_equal(mean([0, 1, 2, 3]), mean([3, 1, 0, 2]))
    assert np.linalg.norm(mean([0, 1, 2, 3])) <= 2.0 * 1.001
    # A rotation keeps norms: clipped before or after it, the update is the same.
    decoded = clip(pipeline.decode(payloads[3], layout, RoundKey(0, 1, 3)), 2.0)
    # What is rotated back is rounded to 15 bits of its block's largest value, and here it is so on one side alone.
    assert np.linalg.norm(mean([3]) - decoded) < 2e-4 * np.linalg.norm(decoded)
