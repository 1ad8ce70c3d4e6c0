import numpy as np
import pytest

from featherfed.codec import blocks
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.rotate import Rotate, RotateShared
from featherfed.randomness import RoundKey

KEY = RoundKey(1, 2, 3)
SIZES = (1, 2, 3, 100, 5120, 8191, 8192, 8193, 70_000, 139_999)


@pytest.mark.parametrize("size", SIZES)
def test_rotation_keeps_lengths_and_is_undone(size: int) -> None:
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    rotated = Rotate().forward(values, KEY, 0)
    assert np.isclose(np.linalg.norm(rotated), np.linalg.norm(values), rtol=1e-4)
    undone = Rotate().backward(rotated.copy(), KEY, 0)
    # Two roundings to 15 bits of the largest value, four where blocks overlap.
    assert np.linalg.norm(undone - values) < 1.5e-4 * np.linalg.norm(values)


@pytest.mark.parametrize("size", SIZES)
def test_runs_are_the_whole_vector_to_the_bit(size: int) -> None:
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    runs = [run.copy() for run in Rotate().forward_runs(values, KEY, 0)]
    assert np.concatenate(runs).tobytes() == Rotate().forward(values, KEY, 0).tobytes()
    assert all(len(run) % blocks.BLOCK == 0 for run in runs[:-1])


@pytest.mark.parametrize("size", SIZES)
def test_whole_numbers_are_undone_as_their_values_are(size: int) -> None:
    generator = np.random.default_rng(size)
    whole = generator.integers(-2048, 2049, size).astype(np.float32)
    numbers = generator.random(blocks.count(size)).astype(np.float32)
    scaled = whole.copy()
    blocks.multiply(scaled, numbers)
    undone = Rotate().backward(scaled.copy(), KEY, 0)
    exact = Rotate().backward(whole.copy(), KEY, 0, numbers)
    assert np.linalg.norm(undone - exact) < 1.5e-4 * np.linalg.norm(scaled)


@pytest.mark.parametrize("size", SIZES[3:])
def test_values_of_any_tensor_become_normal_with_one_variance(size: int) -> None:
    """A rotation that undid part of itself left values with a fourth moment of 4.5 σ⁴; a normal one has 3."""
    values = (1 + np.arange(size) % 7).astype(np.float32)
    fourth = []
    for seed in range(40):
        y = Rotate().forward(values, RoundKey(seed, 1, 0), 0)
        fourth.append(float((y**4).mean() / (y**2).mean() ** 2))
    # A block of B values has a fourth moment of 3 with a deviation of √(24/B); 40 of them are averaged.
    assert abs(np.mean(fourth) - 3) < 0.1 + 5 * (24 / min(size, 64) / 40) ** 0.5 * (size < 1000)


def test_eden_has_no_bias_where_the_last_block_overlaps() -> None:
    layout, n = Layout((Tensor("x", (10, 512)),)), 64
    activations = np.random.default_rng(0).exponential(size=512)
    values = np.multiply.outer(np.linspace(-1, 1, 10), activations).ravel().astype(np.float32)
    pipeline, error, squared = Pipeline.parse("rotate | eden(1)"), np.zeros(layout.size), 0.0
    for seed in range(n):
        key = RoundKey(seed, 1, 0)
        difference = pipeline.decode(pipeline.encode(values, layout, key).payload, layout, key) - values
        error += difference
        squared += float(difference @ difference / (values @ values)) / n
    assert squared < 0.59
    assert np.linalg.norm(error / n) / np.linalg.norm(values) < 1.1 * (squared / n) ** 0.5 + 0.01


def test_only_a_shared_rotation_is_the_same_for_all_phones() -> None:
    values, other = np.arange(100, dtype=np.float32), RoundKey(1, 2, 4)
    assert not np.array_equal(Rotate().forward(values, KEY, 0), Rotate().forward(values, other, 0))
    assert np.array_equal(RotateShared().forward(values, KEY, 0), RotateShared().forward(values, other, 0))
