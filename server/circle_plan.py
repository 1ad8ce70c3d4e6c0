"""How the cohorts of a run are dealt into circles, whose updates are summed before they are decoded."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from featherfed.errors import ConfigError
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
        if len(cohort) < max(1, self.least):
            return ()
        order = RoundKey(seed, round_number).generator(f"circles/{attempt}").permutation(len(cohort))
        number = self.count(len(cohort))
        short, longer = divmod(len(cohort), number)
        ends = [each * short + min(each, longer) for each in range(number + 1)]
        return tuple(tuple(int(cohort[place]) for place in order[first:end]) for first, end in itertools.pairwise(ends))


def plan_of(config: RunConfig, round_number: int) -> CirclePlan:
    """Return the plan of a round: what is retried, or a gateway's share, gets no larger circles than steps are for.

    Nine phones make no two circles of five, so that steps are for nine at least wherever circles may be masked.
    """
    asked = config.cohort_size_at(round_number)
    most = CirclePlan(config.circle, MOST_MEMBERS if config.secure else asked).members(asked)
    if config.circle >= DEFAULT_LEAST_CIRCLE:
        most = max(most, min(asked, 2 * DEFAULT_LEAST_CIRCLE - 1))
    least = DEFAULT_LEAST_CIRCLE if config.secure else 1
    lost = config.lost if config.dp == "distributed" else 1.0
    return CirclePlan(config.circle, most, config.slices, config.secure, least, lost)


def clip_of(config: RunConfig) -> float:
    """Return the longest L2 norm of an update of a run that sums circles."""
    return config.clip_norm or CLIP_NORM


def risks_of(config: RunConfig) -> Risks:
    """Return what circles of a masked run stand, if a tenth of all phones collude and a tenth leave."""
    asked, plan = config.cohort_size_at(1), plan_of(config, 1)
    if config.gateways:
        asked = max(DEFAULT_LEAST_CIRCLE, round(CohortShare.of(config, config.gateways).mean))
    members = plan.members(asked)
    return Risks(config.phones, members, colluding=config.colluding, lost=0.1, least=plan.survivors(members))


@dataclass(frozen=True, slots=True)
class CohortShare:
    """What the smallest of `gateways` has of a masked round's cohort: `row` of all `phones`, of whom `asked` are."""

    phones: int
    row: int
    asked: int
    gateways: int

    @classmethod
    def of(cls, config: RunConfig, gateways: int) -> "CohortShare":
        """Return those of the round that asks fewest phones."""
        asked = min(config.by_round(config.cohort_size_at).values)
        return cls(config.phones, config.phones // gateways, asked, gateways)

    @property
    def mean(self) -> float:
        """How many of its phones a round asks, in the mean."""
        return self.asked * self.row / self.phones

    @property
    def below(self) -> float:
        """The chance that a round asks fewer of them than a circle has: P[Hyp(N, row, asked) < least]."""
        n, row, asked = self.phones, self.row, self.asked
        ways = sum(comb(row, few) * comb(n - row, asked - few) for few in range(DEFAULT_LEAST_CIRCLE))
        return ways / comb(n, asked)

    def check(self) -> None:
        """Raise `ConfigError` where most rounds would ask nobody of a gateway."""
        if self.mean < DEFAULT_LEAST_CIRCLE:
            raise ConfigError(
                f"--secure needs circles of at least {DEFAULT_LEAST_CIRCLE} phones, and each gateway's are its own: of"
                f" the {self.asked} phones that a round asks one of {self.gateways} has {self.mean:.3g}; ask more"
                " (--cohort), or have fewer --gateways"
            )

    def __str__(self) -> str:
        return (
            f"of {self.asked} phones a round asks {self.mean:.3g} of each gateway's in the mean; fewer than"
            f" {DEFAULT_LEAST_CIRCLE} are no circle and send nothing, which happens to one with chance {self.below:.2g}"
        )
