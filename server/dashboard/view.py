"""What the page is sent: one `Snapshot` when it connects, then a `Change` at most four times a second.

Rows that are many (phones, lanes) travel as arrays. Times are seconds of the run's clock, which stands still while a
run is paused; a lane's times count from the opening of its round.
"""

import enum
from typing import Any

from msgspec import Struct

from featherfed.server.measures import Measures
from featherfed.server.storage.ledger import Traffic

Lane = list[tuple[float, int]]
"""When a phone's state changed in a round, and to what: (seconds, `PhoneState`)."""


class PhoneState(enum.IntEnum):
    """What a phone is doing, as far as its server can tell."""

    AWAY = 0  # was never here in this life of the server, or rests
    WAITING = 1
    DOWNLOADING = 2
    TRAINING = 3
    UPLOADING = 4
    ACCEPTED = 5
    LATE = 6
    DROPPED = 7
    SUMMING = 8  # its update is here, and the sum of its circle is not open yet


class FleetRow(Struct, frozen=True, array_like=True):
    """Who plays a shard, and its way here."""

    shard: int
    name: str
    link: str
    link_bytes_per_s: int


class PhoneRow(Struct, frozen=True, array_like=True):
    """What a phone is doing. `progress` is 0 to 1 of its upload; bytes are the socket's, handshakes included."""

    shard: int
    state: int
    since_s: float
    progress: float
    bytes_per_s: int
    up: int
    down: int


class RoundRow(Struct, frozen=True):
    """A round, with the names of `fl-server report --json`: `socket` and `handshake` are sums of both ways."""

    round: int
    state: str
    cohort: int
    accepted: int
    late: int
    failed: int
    loss: float | None
    metrics: dict[str, float | None]
    seconds: float | None
    uplink: dict[str, int]
    downlink: dict[str, int]
    socket: int = 0
    handshake: int = 0
    epsilon: float | None = None


class FaultRow(Struct, frozen=True):
    """What a phone did that ended its connection."""

    at_s: float
    round: int
    phone: str
    code: int
    sentence: str


class Timeline(Struct, frozen=True):
    """The lanes of a round by shard. `seconds` is None while it is open."""

    round: int
    start_s: float
    seconds: float | None
    lanes: dict[int, Lane]


class RunStatus(Struct, frozen=True):
    """Where the run is. `phase` is gathering, open, closing, done, paused, or stored for a run that nobody serves."""

    phase: str
    reason: str | None
    clock_s: float
    round: int
    attempt: int
    cohort: int
    accepted: int
    target: int
    connected: int


class About(Struct, frozen=True):
    """What never changes."""

    name: str
    live: bool
    rounds: int
    phones: int
    parameters: int
    settings: dict[str, Any]
    command: str
    measures: Measures


class Snapshot(Struct, frozen=True, tag="snapshot", tag_field="kind"):
    """All that the page shows."""

    about: About
    standing: RunStatus
    rounds: list[RoundRow]
    fleet: list[FleetRow]
    phones: list[PhoneRow]
    faults: list[FaultRow]
    timeline: Timeline | None


class Change(Struct, frozen=True, tag="change", tag_field="kind"):
    """What is new since the last one. Rows replace those of their round or shard; lanes and faults are appended.

    A timeline of another round than the last one begins afresh.
    """

    standing: RunStatus
    rounds: list[RoundRow]
    fleet: list[FleetRow]
    phones: list[PhoneRow]
    faults: list[FaultRow]
    timeline: Timeline | None


def parts(traffic: Traffic) -> dict[str, int]:
    """Return what the socket's bytes and the handshakes were spent on; the parts are disjoint.

    >>> parts(Traffic(payload=100, message=115, socket=130, handshake=7, resent=20, wasted=30, masks=5, points=8))
    {'payload': 42, 'framing': 25, 'masks': 13, 'resent': 20, 'wasted': 30, 'handshake': 7}
    """
    return {
        "payload": traffic.payload - traffic.resent - traffic.wasted - traffic.points,
        "framing": traffic.socket - traffic.payload - traffic.masks,
        "masks": traffic.masks + traffic.points,
        "resent": traffic.resent,
        "wasted": traffic.wasted,
        "handshake": traffic.handshake,
    }
