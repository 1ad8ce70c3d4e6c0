"""Selections: everybody alike, those on fast links, those who were not asked for long."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featherfed.errors import ConfigError
from featherfed.rules.select import PhoneFacts, Select, SelectKey


class Uniform(Select):
    """A seeded draw that depends on nothing but the seed, the round and who is there.

    Every shard draws a number of its own and the lowest are taken, so that whether shard 7 is there decides about
    shard 7 and one more, never about the whole cohort; order of arrival and names decide nothing.

    >>> sorted(Uniform().choose([PhoneFacts(shard) for shard in range(100)], 4, SelectKey(0, 1, 0)))
    [26, 59, 68, 79]
    """

    name = "uniform"
    uses_facts = False
    separable = True

    def choose(self, phones: Sequence[PhoneFacts], size: int, key: SelectKey) -> Iterable[int]:
        """Return the shards with the lowest numbers."""
        return sorted((phone.shard for phone in phones), key=key.draw)[:size]


@dataclass(frozen=True)
class FastLinks(Select):
    """A draw among the `share` of the phones whose links carry most up.

    Rounds get shorter and the model learns less from those on slow links: the price is a bias that grows as the share
    gets smaller. A phone that does not say what its link carries counts as fast.

    >>> phones = [PhoneFacts(shard, bytes_per_s=1000 * shard) for shard in range(1, 9)]
    >>> sorted(FastLinks(0.25).choose(phones, 2, SelectKey(0, 1, 0)))
    [7, 8]
    """

    share: float = 0.5

    name = "fast-links"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"selection '{self}' needs a share above 0 and at most 1, like fast-links:0.5")

    def choose(self, phones: Sequence[PhoneFacts], size: int, key: SelectKey) -> Iterable[int]:
        """Return a draw among the fastest; among as many as are asked for at least."""
        by_rate = sorted(phones, key=lambda phone: (-(phone.bytes_per_s or math.inf), key.draw(phone.shard)))
        fastest = by_rate[: max(size, math.ceil(self.share * len(phones)))]
        return sorted((phone.shard for phone in fastest), key=key.draw)[:size]


class RarePhones(Select):
    """Those who were asked longest ago first: whoever is rarely there takes part whenever it is.

    >>> phones = [PhoneFacts(0, last_asked=4), PhoneFacts(1, last_asked=2), PhoneFacts(2, last_asked=3)]
    >>> list(RarePhones().choose(phones, 2, SelectKey(0, 5, 0)))
    [1, 2]
    """

    name = "rare-phones"

    def choose(self, phones: Sequence[PhoneFacts], size: int, key: SelectKey) -> Iterable[int]:
        """Return the shards by the round in which they were asked last, drawn where that is the same."""
        waited = sorted(phones, key=lambda phone: (phone.last_asked, key.draw(phone.shard)))
        return [phone.shard for phone in waited[:size]]
