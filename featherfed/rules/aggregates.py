"""The mean, and aggregates that a minority of poisoned updates cannot move far (Yin et al. 2018, arXiv 1803.01498).

Of n updates u₁ … uₙ, for each coordinate on its own:

    mean             Σ examples · u / Σ examples (McMahan et al. 2017), exact (featherfed/codec/exact_sum.py)
    median           the middle one of u₁ … uₙ, or the mean of the middle two
    trimmed-mean:β   the mean of what is left without the ⌈βn⌉ largest and the ⌈βn⌉ smallest

The last two withstand as many liars as they drop on one side: under n/2, and βn. What they cost is memory: they need a
coordinate of all updates at once, so the round's updates are kept, decoded, until it closes: 4 bytes × parameters ×
updates, 665 MB for 100 of `cnn`. `examples` is a phone's own claim and has no weight in them.

Sorted values are summed, so neither depends on the order in which the updates came, to the bit.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featherfed.errors import ConfigError
from featherfed.rules.aggregate import F32, Aggregate, Arrays, Updates


class Mean(Aggregate):
    """The mean, weighted by examples."""

    name = "mean"
    needs_all = False
    mergeable = True

    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the mean, which is all that there is."""
        return state, updates.rows[0]


class Median(Aggregate):
    """The middle of each coordinate."""

    name = "median"
    compares = True

    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the median of each coordinate."""
        return state, trimmed(updates, 0.5)


@dataclass(frozen=True)
class TrimmedMean(Aggregate):
    """The mean of each coordinate without its ends; `share` of the updates is dropped on each side."""

    share: float

    name = "trimmed-mean"
    example = "trimmed-mean:0.1"
    compares = True

    def __post_init__(self) -> None:
        if not 0 < self.share < 0.5:
            raise ConfigError(
                f"aggregate '{self}' needs a share above 0 and below 0.5 after the colon, like {self.example}"
            )

    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the trimmed mean of each coordinate."""
        return state, trimmed(updates, self.share)


def trimmed(updates: Updates, share: float) -> F32:
    """Return the trimmed mean of each coordinate, (parameters,) float32."""
    result = np.empty(updates.parameters, np.float32)
    for run, values in updates.runs():
        result[run] = trimmed_mean(values, share)
    return result


def trimmed_mean(updates: F32, share: float) -> npt.NDArray[np.float64]:
    """Return the mean over the rows of `updates`, (updates, coordinates), without ⌈share·n⌉ of each coordinate's ends.

    At least one row is left, or two where n is even: share ½ is the median.

    >>> trimmed_mean(np.array([[1], [2], [3], [1000]], np.float32), 0.1)
    array([2.5])
    """
    count = len(updates)
    dropped = min(math.ceil(share * count), (count - 1) // 2)
    kept = np.sort(updates, axis=0)[dropped : count - dropped]
    return mean_of_rows(kept)


def mean_of_rows(rows: F32) -> npt.NDArray[np.float64]:
    """Return the mean over the rows, added one after the other in float64."""
    total = np.zeros(rows.shape[1], np.float64)
    for row in rows:
        total += row
    total /= len(rows)
    return total
