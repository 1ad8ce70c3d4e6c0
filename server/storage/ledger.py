"""The byte ledger: what each (round, phone, direction) cost, each byte counted once.

    theory     what the pipeline's formula gives for the transfers that were begun
    payload    bytes of updates or models
    message    the msgpack messages around and including the payload
    socket     what the connection carried: messages, WebSocket headers, pings, acknowledgements
    handshake  HTTP upgrade with Hello up and Welcome down; apart from all the others
    resent     payload that travelled in vain and travels again: the other end had it already, or a broken link or a
               killed process cut it off
    wasted     payload of transfers that did not count: late, cancelled, refused
    masks      messages that only masks need: keys, circles without their steps, lists of survivors, shares
    points     of payload, what only masks need: commitments and points of updates that count

So socket ≥ message ≥ payload ≥ resent, wasted, points, and message ≥ payload + masks.
"""

import operator
from collections.abc import Iterable
from dataclasses import dataclass, fields

DIRECTIONS = ("uplink", "downlink")


@dataclass(slots=True)
class Traffic:
    """Bytes of one direction; sums add field by field."""

    theory: int = 0
    payload: int = 0
    message: int = 0
    socket: int = 0
    handshake: int = 0
    resent: int = 0
    wasted: int = 0
    masks: int = 0
    points: int = 0

    def add(self, other: "Traffic") -> None:
        """Add another count to this one."""
        for name in FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return dict(zip(FIELDS, self.counts(), strict=True))

    def counts(self) -> tuple[int, ...]:
        """Return the counts in the order of `FIELDS`: for every write to the disk."""
        counts: tuple[int, ...] = _counts(self)
        return counts


FIELDS = tuple(field.name for field in fields(Traffic))
_counts = operator.attrgetter(*FIELDS)


class Ledger:
    """The counts of a run, and which of them changed since they were last written."""

    def __init__(self, kept: dict[tuple[int, int, str], Traffic] | None = None) -> None:
        self._rows: dict[tuple[int, int, str], Traffic] = {}
        # The same counts by what sums are asked for: a round, or a phone, out of a long run's many.
        self._of_round: dict[int, list[tuple[str, Traffic]]] = {}
        self._of_shard: dict[int, list[tuple[str, Traffic]]] = {}
        for key, traffic in (kept or {}).items():
            self._add(key, traffic)
        self._dirty: set[tuple[int, int, str]] = set()
        self._followers = [self._dirty]

    def entry(self, round_number: int, shard: int, direction: str) -> Traffic:
        """Return the count of one (round, phone, direction) to add to."""
        key = (round_number, shard, direction)
        for touched in self._followers:
            touched.add(key)
        traffic = self._rows.get(key)
        return self._add(key, Traffic()) if traffic is None else traffic

    def _add(self, key: tuple[int, int, str], traffic: Traffic) -> Traffic:
        round_number, shard, direction = key
        self._rows[key] = traffic
        self._of_round.setdefault(round_number, []).append((direction, traffic))
        self._of_shard.setdefault(shard, []).append((direction, traffic))
        return traffic

    @property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._dirty)

    def take_changed(self) -> dict[tuple[int, int, str], Traffic]:
        """Return the counts that changed since the last call."""
        changed = {key: self._rows[key] for key in self._dirty}
        self._dirty.clear()
        return changed

    def follow(self) -> set[tuple[int, int, str]]:
        """Return a set that gets the key of every count that is asked for from now on; the caller empties it."""
        touched: set[tuple[int, int, str]] = set()
        self._followers.append(touched)
        return touched

    def keys(self) -> Iterable[tuple[int, int, str]]:
        """Return the (round, phone, direction) of every count."""
        return self._rows.keys()

    def read(self, key: tuple[int, int, str]) -> Traffic:
        """Return a count to look at."""
        return self._rows[key]

    def shards(self) -> set[int]:
        """Return the phones that have a count."""
        return set(self._of_shard)

    def total(self, direction: str, round_number: int | None = None, *, shard: int | None = None) -> Traffic:
        """Return the sum over phones and rounds, of one round, or of one phone."""
        assert round_number is None or shard is None, "a phone's count in a round is an entry"
        if round_number is not None:
            counts = self._of_round.get(round_number, [])
        elif shard is not None:
            counts = self._of_shard.get(shard, [])
        else:
            counts = [count for of_round in self._of_round.values() for count in of_round]
        rows = [traffic.counts() for way, traffic in counts if way == direction]
        return Traffic(*map(sum, zip(*rows, strict=True)))
