"""Sums of the ledger, kept up to date by what changed: a thousand phones are not added up four times a second."""

from collections.abc import Iterable

from featherfed.server.storage.ledger import DIRECTIONS, FIELDS, Ledger, Traffic

Key = tuple[int, int, str]


class Sums:
    """Over phones for each (round, direction), and over rounds for each (phone, direction)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: dict[Key, tuple[int, ...]] = {}
        self._touched = ledger.follow()
        self.rounds: dict[int, dict[str, Traffic]] = {}
        self.phones: dict[int, dict[str, Traffic]] = {}
        self._touched.update(ledger.keys())

    def update(self) -> tuple[set[int], set[int]]:
        """Take in what changed since the last call; return the rounds and the shards that it concerns."""
        keys = list(self._touched)
        self._touched.clear()
        return self._take(keys)

    def recount(self, round_number: int) -> None:
        """Take in all of a round: an entry may have been added to long after it was asked for."""
        self._take([key for key in self._seen if key[0] == round_number])

    def of_round(self, number: int) -> dict[str, Traffic]:
        """Return the traffic of a round by direction."""
        return self.rounds.setdefault(number, {way: Traffic() for way in DIRECTIONS})

    def of_phone(self, shard: int) -> dict[str, Traffic]:
        """Return the traffic of a phone by direction."""
        return self.phones.setdefault(shard, {way: Traffic() for way in DIRECTIONS})

    def _take(self, keys: Iterable[Key]) -> tuple[set[int], set[int]]:
        numbers, shards = set(), set()
        for key in keys:
            number, shard, way = key
            now, before = self._ledger.read(key), self._seen.get(key, _NOTHING)
            values = tuple(getattr(now, name) for name in FIELDS)
            if values == before:
                continue
            self._seen[key] = values
            numbers.add(number)
            shards.add(shard)
            for traffic in (self.of_round(number)[way], self.of_phone(shard)[way]):
                for name, new, old in zip(FIELDS, values, before, strict=True):
                    if new != old:
                        setattr(traffic, name, getattr(traffic, name) + new - old)
        return numbers, shards


_NOTHING = (0,) * len(FIELDS)
