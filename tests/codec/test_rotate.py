import numpy as np
import pytest

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.rotate import Rotate, RotateShared, hadamard, transform
from featherfed.randomness import RoundKey

KEY = RoundKey(1, 2, 3)
SIZES = (1, 2, 3, 100, 5120, 8191, 8192, 8193, 70_000)


@pytest.mark.parametrize("order", [1, 2, 8, 64, 8192, 1 << 15])
def test_transform_is_the_hadamard_matrix(order: int) -> None:
    values = np.random.default_rng(0).standard_normal(2 * order).astype(np.float32)
    runs = values.copy().reshape(2, order)
    transform(values, order)
    some = np.arange(0, order, max(order // 32, 1))
    # Entry (i, j) of Sylvester's matrix is −1 to the number of ones that i and j share.
    rows = np.array([[1 - 2 * ((int(i) & j).bit_count() & 1) for j in range(order)] for i in some])
    assert np.allclose(values.reshape(2, order)[:, some], runs @ rows.T / np.sqrt(order), atol=1e-4)
    if order <= 64:
        assert np.array_equal(hadamard(order)[some], rows)


@pytest.mark.parametrize("size", SIZES)
def test_rotation_keeps_lengths_and_is_undone(size: int) -> None:
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    rotated = Rotate().forward(values, KEY, 0)
    assert np.isclose(np.linalg.norm(rotated), np.linalg.norm(values), rtol=1e-4)
    assert np.allclose(Rotate().backward(rotated.copy(), KEY, 0), values, atol=1e-4)


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
