"""An update without training: what `--train none` sends, to measure everything but the training."""

import math

import numpy as np
import numpy.typing as npt

from featherfed.randomness import RoundKey

SCALE = 1e-3


def noise_update(size: int, key: RoundKey) -> npt.NDArray[np.float32]:
    """Return seeded uniform noise around 0, (size,) float32 with standard deviation `SCALE`.

    Normal noise would take five times as long, most of what a phone without training costs a large model's round.
    """
    noise = key.generator("noise").random(size, dtype=np.float32)
    noise -= np.float32(0.5)
    noise *= np.float32(SCALE * math.sqrt(12))
    return noise
