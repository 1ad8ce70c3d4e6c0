"""How the updates of a round become one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from featherfed.randomness import RoundKey
from featherfed.rules.parameters import Rule

F32 = npt.NDArray[np.float32]
Arrays = Mapping[str, F32]
"""A rule's memory: float32 arrays of any shape by name, saved with the model and given back after a restart."""
_RUN = 1 << 12
"""Coordinates that are looked at together: what is copied for it stays small beside the updates themselves."""


@dataclass(frozen=True, slots=True)
class Updates:
    """What came in one round.

    `rows` is a list of updates, each (parameters,) float32 and finite, in the rising order of `shards`; `weights` are
    theirs. `np.stack(updates.rows)` copies them to one array, `runs()` goes through them without.
    For a rule that does not need all of them there is one row, the weighted mean, with the sum of the weights, and no
    shard. `key` names the round, for what is random: `key.generator("noise")` is the same again in a repeated run.
    """

    rows: Sequence[F32]
    weights: Sequence[int]
    shards: Sequence[int]
    key: RoundKey

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def parameters(self) -> int:
        """Number of coordinates."""
        return len(self.rows[0])

    def runs(self) -> Iterator[tuple[slice, F32]]:
        """Yield a few thousand coordinates at a time: where they are, and their values, (updates, coordinates)."""
        for start in range(0, self.parameters, _RUN):
            run = slice(start, min(start + _RUN, self.parameters))
            yield run, np.stack([row[run] for row in self.rows])


class Aggregate(Rule, ABC):
    """Makes one update of a round's: pure, state in and state out.

    Numbers that may follow its name, as in `mytask:Krum:2`, are the fields of a dataclass; each needs a default or is
    asked for. A rule that is to give the same bits on every machine adds in an order of its own (docs/RULES.md).
    """

    needs_all: ClassVar[bool] = True
    """Whether it is given each update, decoded: 4 bytes × parameters × updates of memory. If not, updates are added to
    an exact sum as they come, and it is given their weighted mean."""
    mergeable: ClassVar[bool] = False
    """Whether it may be given the mean of sums that gateways made; only for one that does not need all."""
    compares: ClassVar[bool] = False
    """Whether it compares updates coordinate by coordinate or by their distance, so that a codec which leaves most
    coordinates zero would make it follow the zeros."""

    @property
    def least_updates(self) -> int:
        """Fewer updates it can make nothing of."""
        return 1

    def start(self, parameters: int) -> Arrays:
        """Return the state before the first round: nothing, where it keeps none."""
        return {}

    def weight(self, examples: int) -> int:
        """Return what an update weighs, a whole number above 0, from the examples that its phone says it has seen."""
        return examples

    @abstractmethod
    def combine(self, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
        """Return the state after a round, and its update, (parameters,) float32; there is at least one row."""
        raise NotImplementedError
