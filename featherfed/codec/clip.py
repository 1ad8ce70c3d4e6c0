"""Bounding how far one update can pull: u ← u · min(1, C / ‖u‖₂).

McMahan et al. 2018 (arXiv 1710.06963, section 3) bound each phone's influence so; Sun et al. 2019 (arXiv 1911.07963)
show that it takes the force out of scaled-up poisoned updates. A phone cannot know it was clipped: nothing travels.
"""

import math

import numpy as np

from featherfed.codec.space import F32
from featherfed.codec.sums import product


def clip(values: F32, longest: float) -> F32:
    """Return `values`, scaled down where their L2 norm exceeds `longest` (infinity: never), up to float32's rounding.

    >>> clip(np.array([3, 4], np.float32), 1.0)
    array([0.6, 0.8], dtype=float32)
    >>> clip(np.array([3, 4], np.float32), 6.0)
    array([3., 4.], dtype=float32)
    """
    if longest == math.inf:
        return values
    # In float64, where no square of a float32 overflows.
    norm = math.sqrt(product(values, values))
    return values if norm <= longest else values * np.float32(longest / norm)
