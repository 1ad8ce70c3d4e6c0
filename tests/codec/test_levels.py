"""The tables of whole numbers are what the formulas give, rounded; the code holds no table that nobody can derive."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from featherfed.codec import eden, stochastic
from featherfed.codec.pipeline import Pipeline


def lloyd_max(bits: int) -> list[float]:
    """Return the levels that minimise the distortion of a normal variable.

    Lloyd's iteration on the exact conditional means: boundaries lie midway between levels, levels are the means of
    their cells, (φ(a) − φ(b)) / (Φ(b) − Φ(a)).
    """
    normal, count = NormalDist(), 1 << bits
    levels = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    for _ in range(2000):
        edges = [-math.inf, *((a + b) / 2 for a, b in itertools.pairwise(levels)), math.inf]
        density = [0.0 if math.isinf(edge) else normal.pdf(edge) for edge in edges]
        below = [0.0 if edge == -math.inf else 1.0 if edge == math.inf else normal.cdf(edge) for edge in edges]
        levels = [(density[i] - density[i + 1]) / (below[i + 1] - below[i]) for i in range(count)]
    return levels


def quantiles(bits: int) -> list[float]:
    """Return levels in [−1, 1] at equal quantiles of a normal variable of √3/3.9."""
    wide = NormalDist(0, math.sqrt(3) / 3.9)
    low, count = wide.cdf(-1), 1 << bits
    return [wide.inv_cdf(low + (1 - 2 * low) * i / (count - 1)) for i in range(count)]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_of_eden_are_lloyds(bits: int) -> None:
    assert [round(eden.UNIT * level) for level in lloyd_max(bits) if level > 0] == list(eden.POSITIVE[bits])


@pytest.mark.parametrize("bits", range(2, 9))
def test_levels_of_stochastic_are_quantiles(bits: int) -> None:
    levels = [round(stochastic.UNIT * level) for level in quantiles(bits) if level > 0]
    assert levels == list(stochastic.POSITIVE[bits])


@pytest.mark.parametrize("spec", ["eden(1)", "eden(4)", "stochastic(1)", "stochastic(2)", "stochastic(8)"])
def test_levels_are_whole_symmetric_and_small_enough_for_an_exact_rotation(spec: str) -> None:
    levels = Pipeline.parse(f"rotate | {spec}").quantizer.block_levels
    assert len(levels) == 1 << int(spec[-2])
    assert np.array_equal(levels, -levels[::-1]) and (np.diff(levels) > 0).all()
    assert np.array_equal(levels, np.rint(levels)) and levels.max() <= 1 << 11


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_eden_chooses_the_nearest_level(bits: int) -> None:
    """As it did with the levels' own boundaries: half way between two of them, in units of the deviation."""
    values = np.random.default_rng(0).standard_normal(3 * 8192 + 77).astype(np.float32)
    quantizer = eden.Eden(bits)
    header, symbols = quantizer.encode(values, np.random.default_rng())
    levels = quantizer.block_levels / (eden.UNIT if bits > 1 else 1)
    start = 0
    for number, size in enumerate([8192, 8192, 8192, 77]):
        block, mine = values[start : start + size].astype(np.float64), symbols[start : start + size]
        start += size
        normal = block / np.sqrt((block**2).mean())
        distance = np.abs(normal[:, None] - levels)
        assert (distance[np.arange(size), mine] <= distance.min(axis=1) + 1e-5).all()
        q = quantizer.block_levels[mine].astype(np.float64)
        assert np.isclose(np.frombuffer(header, "<f4")[number], (block**2).sum() / (block @ q), rtol=1e-5)
