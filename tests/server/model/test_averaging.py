from fractions import Fraction

import numpy as np
import pytest

from featherfed.server.model.averaging import averaged


@pytest.mark.parametrize("memory", [0.5, 0.9, 0.99])
def test_mean_has_weights_that_fall_by_the_memory(memory: float) -> None:
    models = [np.array([value], np.float32) for value in (3.0, -1.0, 4.0, 1.5, 9.0)]
    average = np.array([777.0], np.float32)  # before the first version there is none
    for version, weights in enumerate(models, 1):
        average = averaged(average, weights, version, memory)
    shares = [Fraction(memory) ** (len(models) - version) for version in range(1, len(models) + 1)]
    expected = sum(share * Fraction(float(m[0])) for share, m in zip(shares, models, strict=True)) / sum(shares)
    assert np.isclose(average[0], float(expected), rtol=1e-6)


def test_share_of_a_late_version_has_one_order_of_rounding() -> None:
    """Of IEEE products alone: the C library's power is another one on another machine."""
    power = base = 0.97
    for _ in range(9):
        base *= base
        power = base  # 0.97 to the 512 by squaring
    share = np.float32((1 - 0.97) / (1 - power))
    average = averaged(np.zeros(1, np.float32), np.ones(1, np.float32), 512, 0.97)
    assert average.tobytes() == share.tobytes()
