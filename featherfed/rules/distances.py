"""Aggregates that judge an update as a whole, by how far it is from the others.

Krum (Blanchard et al. 2017, arXiv 1703.02757) scores update i by Σ ‖uᵢ − uⱼ‖² over its n − f − 2 nearest others, where
f is how many may lie, and takes the one with the least; of equal ones that of the lowest shard. Multi-Krum takes the
mean of the n − f with the least scores. Both are proven for n ≥ 2f + 3.

The geometric median (Pillutla et al. 2022, arXiv 1912.13445; Weiszfeld 1937) is the point v with the least Σ ‖v − uᵢ‖:

    v ← Σ uᵢ / max(ν, ‖v − uᵢ‖)  /  Σ 1 / max(ν, ‖v − uᵢ‖),    ν = 10⁻⁶,  eight times,

which begins at the median of each coordinate, since a mean would begin as far away as one liar likes. It withstands
under n/2 liars.

Squared distances are summed by `codec.sums.product`, rows in the rising order of shards and in float64, and the one
root is IEEE 754's: the same bits on every machine, in whatever order updates came.
"""

import math
from dataclasses import dataclass

import numpy as np

from featherfed.codec.sums import product
from featherfed.errors import ConfigError
from featherfed.rules.aggregate import F32, Aggregate, Arrays, Updates
from featherfed.rules.aggregates import mean_of_rows, trimmed

STEPS = 8
NEAREST = 1e-6


@dataclass(frozen=True)
class Krum(Aggregate):
    """The one update whose neighbours are nearest; `liars` is how many may lie."""

    liars: int

    name = "krum"
    example = "krum:2"
    compares = True

    def __post_init__(self) -> None:
        if self.liars < 1:
            raise ConfigError(
                f"aggregate '{self}' needs the number of liars that it withstands, 1 or more, like {self.example}"
            )

    @property
    def least_updates(self) -> int:
        """What its proof needs."""
        return 2 * self.liars + 3

    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the update with the least score."""
        return state, updates.rows[self._ranked(updates)[0]]

    def _ranked(self, updates: Updates) -> list[int]:
        """Return the places of all updates, the least score first."""
        scores = krum_scores(updates, self.liars)
        return sorted(range(len(updates)), key=lambda place: (scores[place], place))


@dataclass(frozen=True)
class MultiKrum(Krum):
    """The mean of all but `liars` updates, those whose neighbours are nearest."""

    name = "multi-krum"
    example = "multi-krum:2"

    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the mean of the updates with the least scores."""
        chosen = sorted(self._ranked(updates)[: len(updates) - self.liars])
        result = np.empty(updates.parameters, np.float32)
        for run, values in updates.runs():
            result[run] = mean_of_rows(values[chosen])
        return state, result


def krum_scores(updates: Updates, liars: int) -> list[float]:
    """Return for each update the sum of the squared distances to its n − liars − 2 nearest others."""
    count = len(updates)
    squared = [[0.0] * count for _ in range(count)]
    for first in range(count):
        for second in range(first):
            away = squared_distance(updates.rows[first], updates.rows[second])
            squared[first][second] = squared[second][first] = away
    nearest = max(1, count - liars - 2)
    scores = []
    for place, row in enumerate(squared):
        total = 0.0
        for away in sorted(row[:place] + row[place + 1 :])[:nearest]:
            total += away
        scores.append(total)
    return scores


def squared_distance(left: F32, right: F32) -> float:
    """Return ‖left − right‖², of differences that are rounded to float32.

    >>> squared_distance(np.array([1, 2], np.float32), np.array([4, 6], np.float32))
    25.0
    """
    # Two float32 that are far apart have a difference beyond float32: infinitely far, and so the last to be chosen.
    with np.errstate(over="ignore"):
        difference = left - right
        return product(difference, difference)


class GeometricMedian(Aggregate):
    """The point with the least sum of distances to all updates."""

    name = "geometric-median"
    compares = True

    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the point after a fixed number of Weiszfeld's steps."""
        middle = trimmed(updates, 0.5)
        for _ in range(STEPS):
            shares = [1 / max(NEAREST, math.sqrt(squared_distance(middle, row))) for row in updates.rows]
            whole = 0.0
            for share in shares:
                whole += share
            for run, values in updates.runs():
                total = np.zeros(values.shape[1], np.float64)
                for share, row in zip(shares, values, strict=True):
                    total += np.multiply(row, share / whole, dtype=np.float64)
                middle[run] = total
        return state, middle
