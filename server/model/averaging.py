"""The mean of the models that the rounds made, recent ones weighing most (Polyak & Juditsky 1992, with memory β).

Phones train from the newest model, which each cohort pulls its own way; what is evaluated and kept is the mean. With
w_t the model of version t, t = 1, 2, …:

    a ← a + (1 − β) / (1 − βᵗ) · (w_t − a)

so that a is the mean with weights proportional to β^(t−s) of version s, and the model before the first round has none.
"""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def averaged(average: F32, weights: F32, version: int, memory: float) -> F32:
    """Return the mean, (parameters,) float32, with the model of `version` in it; 0 < `memory` < 1."""
    share = np.float32((1 - memory) / (1 - _power(memory, version)))
    return average + share * (weights - average)


def _power(base: float, exponent: int) -> float:
    """Return base^exponent by squaring: `**` is the C library's, and they differ in the last bit."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
