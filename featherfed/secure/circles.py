"""Circles: the groups of a cohort that mask together, and what a circle of so many stands.

A circle of m phones has k = m − 1 neighbours for each. A phone's own seed comes back from t of its neighbours' shares,
and an answer to a list of survivors wants `least` = t + 1 of them. By `threshold_of`, 2t − k ≥ 2 in every circle:
docs/PRIVACY.md says what follows from that.
"""

from dataclasses import dataclass
from math import comb, log2

LEAST_MEMBERS = 3
"""Of two phones each would know the other's update from the sum."""
MOST_MEMBERS = 128
DEFAULT_LEAST_CIRCLE = 5
"""The smallest circle that a phone takes part in by default."""


def threshold_of(members: int) -> int:
    """Return t: how many neighbours' shares give a phone's own seed, in a circle of `members`.

    It is ⌈0.6 k⌉, and one more in circles of four and of six, where that would leave 2t − k below 2.

    >>> [threshold_of(m) for m in (3, 4, 5, 6, 7, 10, 20, 32)]
    [2, 3, 3, 4, 4, 6, 12, 19]
    """
    neighbours = members - 1
    return max(-(-3 * neighbours // 5), -(-(neighbours + 2) // 2))


def least_of(members: int) -> int:
    """Return how many survivors a sum has at least: below that no phone says anything.

    >>> least_of(10)
    7
    """
    return threshold_of(members) + 1


def head_bytes(members: int) -> int:
    """Return how long commitment and points of an upload are in a circle of `members`.

    >>> head_bytes(10)
    72
    """
    return 8 + 16 * (members - threshold_of(members))


@dataclass(frozen=True, slots=True)
class Risks:
    """What a circle of `members` stands, for shares of colluding and of lost phones; the server prints it."""

    phones: int
    members: int
    colluding: float
    lost: float
    least: int = 0
    """Survivors of a sum, where more than `least_of` are asked for."""

    @property
    def _least(self) -> int:
        return self.least or least_of(self.members)

    @property
    def may_be_lost(self) -> int:
        """How many phones of a circle may be lost while it still gives a sum."""
        return self.members - self._least

    @property
    def revealed(self) -> float:
        """The chance that a circle has as many colluders as give the seeds of the others: P[Hyp(N, γN, m) ≥ t]."""
        all_, bad, m = self.phones, int(self.colluding * self.phones), self.members
        ways = sum(comb(bad, j) * comb(all_ - bad, m - j) for j in range(threshold_of(m), m + 1))
        return ways / comb(all_, m)

    @property
    def fails(self) -> float:
        """The chance that too few of a circle are left for a sum: P[Bin(m, 1 − δ) < least]."""
        m, here = self.members, 1 - self.lost
        return sum(comb(m, j) * here**j * self.lost ** (m - j) for j in range(self._least))

    @property
    def honest_in_a_sum(self) -> int:
        """How many honest phones any sum has, though the server lies about survivors: t − c − (m − least) + 1.

        c = ⌊γm⌋; with `least` = t + 1 it is 2t − k − c + 1.
        """
        m = self.members
        return max(0, threshold_of(m) - int(self.colluding * m) - self.may_be_lost + 1)

    def __str__(self) -> str:
        revealed = f"has with chance 2^{log2(self.revealed):.0f}" if self.revealed else "never has"
        enough = threshold_of(self.members)
        return (
            f"circles of {self.members}: a sum is opened though up to {self.may_be_lost} of them are lost, and fails"
            f" with chance {self.fails:.2g} if {self.lost:.0%} are; if {self.colluding:.0%} of {self.phones} phones"
            f" collude with the server, a circle {revealed} the {enough} of them that can open its updates"
        )
