import numpy as np
import pytest

from featherfed.codec.quantize import Quantize


@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0], [-0.0] * 99, [-0.0, 1.0], [0.0, -1.0, -0.0]])
def test_zero_has_no_sign_in_the_header(values: list[float]) -> None:
    """Which of two zeros a minimum returns depends on the instructions that look for it."""
    header, _ = Quantize(2).encode(np.array(values, np.float32), np.random.default_rng(0))
    numbers = np.frombuffer(header, "<f4")
    assert not np.signbit(numbers[numbers == 0]).any()
