"""An update without training: what `--train none` sends, to measure everything but the training."""

import numpy as np
import numpy.typing as npt

from featherfed.randomness import RoundKey

SCALE = 1e-3


def noise_update(size: int, key: RoundKey) -> npt.NDArray[np.float32]:
    """Return seeded normal noise, (size,) float32 with standard deviation `SCALE`."""
    noise = key.generator("noise").standard_normal(size, dtype=np.float32)
    noise *= np.float32(SCALE)
    return noise
