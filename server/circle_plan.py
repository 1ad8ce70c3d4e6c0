"""How the cohorts of a run are dealt into circles, whose updates are summed before they are decoded."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from featherfed.randomness import RoundKey
from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE, MOST_MEMBERS, Risks, least_of
from featherfed.server.config import RunConfig

CLIP_NORM = 3.0
"""The longest update of a run that sums circles and has no `--clip-norm`: its first steps are shares of that.

Default training gives updates of 0.5 to 3.2 in a first round, whatever the model of ours, and shorter ones later.
"""


@dataclass(frozen=True, slots=True)
class CirclePlan:
    """Circles of about `size` members, of at most `most`; circle g sends slice g modulo `slices` of the coordinates.

    `masked` says that they are summed under masks, and none has fewer than `least` members. With the noise of phones a
    sum is opened only where no more than the share `lost` of a circle's members is missing.
    """

    size: int = 1
    most: int = 1
    slices: int = 1
    masked: bool = False
    least: int = 1
    lost: float = 1.0

    def survivors(self, members: int) -> int:
        """Return how many phones of a circle of so many its sum has at least."""
        return max(least_of(members), members - int(self.lost * members)) if self.masked else 1

    def members(self, cohort: int) -> int:
        """Return how many members the largest circle of a cohort has."""
        return -(-cohort // self.count(cohort))

    def count(self, cohort: int) -> int:
        """Return how many circles a cohort is dealt into."""
        return max(1, cohort // self.size, -(-cohort // self.most))

    def deal(self, cohort: Sequence[int], seed: int, round_number: int, attempt: int) -> tuple[tuple[int, ...], ...]:
        """Return the circles of an attempt, each with its members in their order: drawn, and about equally large.

        None where the cohort is smaller than a circle may be.

        >>> CirclePlan(3, 4).deal([1, 2, 5, 6, 7, 8, 9], 0, 1, 0)
        ((6, 7, 2, 5), (1, 9, 8))
        """
        if len(cohort) < self.least:
            return ()
        order = RoundKey(seed, round_number).generator(f"circles/{attempt}").permutation(len(cohort))
        number = self.count(len(cohort))
        short, longer = divmod(len(cohort), number)
        ends = [each * short + min(each, longer) for each in range(number + 1)]
        return tuple(tuple(int(cohort[place]) for place in order[first:end]) for first, end in itertools.pairwise(ends))


def plan_of(config: RunConfig, round_number: int) -> CirclePlan:
    """Return the plan of a round: what is retried gets no larger circles, whose sums its steps have no room for."""
    asked = config.cohort_size_at(round_number)
    widest = CirclePlan(config.circle, MOST_MEMBERS if config.secure else asked)
    least = DEFAULT_LEAST_CIRCLE if config.secure else 1
    lost = config.lost if config.dp == "distributed" else 1.0
    return CirclePlan(config.circle, widest.members(asked), config.slices, config.secure, least, lost)


def clip_of(config: RunConfig) -> float:
    """Return the longest L2 norm of an update of a run that sums circles."""
    return config.clip_norm or CLIP_NORM


def risks_of(config: RunConfig) -> Risks:
    """Return what circles of a masked run stand, if a tenth of all phones collude and a tenth leave."""
    plan = plan_of(config, 1)
    least = plan.survivors(plan.most)
    return Risks(config.phones, plan.most, colluding=config.colluding, lost=0.1, least=least)
