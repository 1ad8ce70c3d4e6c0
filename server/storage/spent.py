"""What a run has spent: where the ledger's counts become the four figures that everything shows.

    up          bytes that the sockets of all phones carried up (the ledger's `socket`, uplink)
    down        the same down
    both        up + down: what a target costs, and what runs are compared and sorted by
    handshakes  what connecting cost (the ledger's `handshake`, both directions); beside the sum, never in it

Pings, pongs, acknowledgements and closes of admitted phones are in up and down, whether the phones train or wait.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

from featherfed.server.storage.ledger import Traffic


@dataclass(frozen=True, slots=True)
class Spent:
    """Bytes of a round, or of several: they add field by field.

    >>> Spent(up=6_600, down=238_000, handshakes=41_400) + Spent(up=2_200, down=150_000)
    Spent(up=8800, down=388000, handshakes=41400)
    >>> Spent(up=8_800, down=388_000, handshakes=41_400).both
    396800
    >>> print(Spent(up=8_800, down=388_000, handshakes=41_400))
    8.8 kB up + 388 kB down = 397 kB both ways; 41.4 kB of handshakes beside them
    """

    up: int = 0
    down: int = 0
    handshakes: int = 0

    def __str__(self) -> str:
        carried = f"{size(self.up)} up + {size(self.down)} down = {size(self.both)} both ways"
        return f"{carried}; {size(self.handshakes)} of handshakes beside them"

    @property
    def both(self) -> int:
        """What the sockets carried both ways, without handshakes."""
        return self.up + self.down

    def sizes(self) -> dict[str, str]:
        """Return all four for people, by name."""
        figures = {"up": self.up, "down": self.down, "both": self.both, "handshakes": self.handshakes}
        return {name: size(count) for name, count in figures.items()}

    def __add__(self, other: Self) -> Self:
        return type(self)(self.up + other.up, self.down + other.down, self.handshakes + other.handshakes)

    @classmethod
    def of(cls, uplink: Traffic, downlink: Traffic) -> Self:
        """Return what two counts of the ledger say."""
        return cls(uplink.socket, downlink.socket, uplink.handshake + downlink.handshake)

    @classmethod
    def in_row(cls, row: Mapping[str, Any]) -> Self:
        """Return what a round of a report says, or its totals."""
        up, down = row["uplink"], row["downlink"]
        return cls(up["socket"], down["socket"], up["handshake"] + down["handshake"])


def running(rounds: Iterable[Spent]) -> Iterator[Spent]:
    """Yield what was spent from the first byte to the end of each round.

    >>> [spent.both for spent in running([Spent(1, 10), Spent(2, 20)])]
    [11, 33]
    """
    return accumulate(rounds)


def size(num_bytes: float) -> str:
    """Return a byte count in decimal units, as data plans count; fractions of a byte are rounded.

    >>> size(999), size(25_120), size(6_653_480)
    ('999 B', '25.1 kB', '6.65 MB')
    """
    num_bytes = round(num_bytes)
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}" if num_bytes < 999.5 * scale else f"{num_bytes / scale:.0f} {unit}"
    return f"{num_bytes} B"
