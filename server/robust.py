"""Aggregates that a minority of poisoned updates cannot move far (Yin et al. 2018, arXiv 1803.01498).

Of n updates u₁ … uₙ, for each coordinate on its own:

    median           the middle one of u₁ … uₙ, or the mean of the middle two
    trimmed-mean:β   the mean of what is left without the ⌈βn⌉ largest and the ⌈βn⌉ smallest

Both withstand as many liars as they drop on one side: under n/2, and βn. What they cost is memory: they need a
coordinate of all updates at once, so the round's updates are kept, decoded, until it closes: 4 bytes × parameters ×
updates, 665 MB for 100 of `cnn`. `examples` is a phone's own claim and has no weight here.

Sorted values are summed, so neither depends on the order in which the updates came, to the bit.
"""

import math

import numpy as np
import numpy.typing as npt

from featherfed.codec.clip import clip
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.randomness import RoundKey

AGGREGATES = ("mean", "median", "trimmed-mean:0.1")
_RUN = 1 << 12
"""Coordinates that are sorted at a time: what is copied for it stays small beside the updates themselves."""


def parse_aggregate(text: str) -> float:
    """Return the share of updates to drop on each side: 0 for the mean, ½ for the median; or raise `ConfigError`.

    >>> [parse_aggregate(text) for text in AGGREGATES]
    [0.0, 0.5, 0.1]
    """
    name, _, number = text.partition(":")
    if text in ("mean", "median"):
        return 0.0 if text == "mean" else 0.5
    if name != "trimmed-mean":
        raise ConfigError(f"unknown aggregate {text!r}{nearest(name, ('mean', 'median', 'trimmed-mean'))}")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not 0 < share < 0.5:
        raise ConfigError(
            f"aggregate {text!r} needs a share above 0 and below 0.5 after the colon, like {AGGREGATES[2]}"
        )
    return share


class KeptUpdates:
    """One round's updates, kept until their mean is asked for; takes the place of a `Fold`."""

    def __init__(self, pipeline: Pipeline, layout: Layout, *, trim: float, clip_norm: float) -> None:
        """`trim` is the share of updates to drop on each side; ½ is the median."""
        self._pipeline, self._layout = pipeline, layout
        self._trim = trim
        self._clip_norm = clip_norm
        self._updates: list[F32] = []

    def add(self, payload: bytes, key: RoundKey, weight: int) -> None:
        """Decode an update and keep it, whatever it claims to weigh; raises `CodecError` and keeps nothing of it."""
        self._updates.append(clip(self._pipeline.decode(payload, self._layout, key), self._clip_norm))

    def mean(self) -> F32:
        """Return the trimmed mean of each coordinate, (parameters,) float32; zeros where nothing was added."""
        result = np.zeros(self._layout.size, np.float32)
        for start in range(0, len(result) if self._updates else 0, _RUN):
            run = slice(start, start + _RUN)
            result[run] = trimmed_mean(np.stack([update[run] for update in self._updates]), self._trim)
        return result


def trimmed_mean(updates: F32, trim: float) -> npt.NDArray[np.float64]:
    """Return the mean over the rows of `updates`, (updates, coordinates), without ⌈trim·n⌉ of each coordinate's ends.

    At least one row is left, or two where n is even: trim ½ is the median.

    >>> trimmed_mean(np.array([[1], [2], [3], [1000]], np.float32), 0.1)
    array([2.5])
    """
    count = len(updates)
    dropped = min(math.ceil(trim * count), (count - 1) // 2)
    total = np.zeros(updates.shape[1], np.float64)
    # Row by row: the order in which `mean` would add is numpy's, and another one for one coordinate than for many.
    for row in np.sort(updates, axis=0)[dropped : count - dropped]:
        total += row
    mean: npt.NDArray[np.float64] = total / (count - 2 * dropped)
    return mean
