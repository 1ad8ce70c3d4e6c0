"""Where the page's data comes from: the run that is served, or runs that lie in a folder."""

from collections.abc import AsyncIterator, Collection
from typing import Protocol

import msgspec

from featherfed.server.dashboard.view import About, Change, RoundRow, Snapshot, Timeline
from featherfed.server.measures import Measure, figures


class NoRunError(Exception):
    """There is no run of that name; the page answers 404."""


class RunLine(msgspec.Struct, frozen=True):
    """A run in the list of runs; `best` is the best value so far of `measure`, its first."""

    name: str
    live: bool
    closed: int
    rounds: int
    measure: Measure | None
    best: float | None


def run_line(about: About, rounds: Collection[RoundRow]) -> RunLine:
    """Return a run's line from its rounds."""
    closed = sum(row.state == "closed" for row in rounds)
    measure = about.measures[0] if about.measures else None
    best = None
    if measure is not None:
        values = (figures(row.loss, row.metrics).get(measure.name) for row in rounds)
        best = max((value for value in values if value is not None), key=measure.score, default=None)
    return RunLine(about.name, about.live, closed, about.rounds, measure, best)


class Source(Protocol):
    """Gives runs."""

    async def runs(self) -> list[RunLine]:
        """Return all runs."""

    def check(self, name: str) -> None:
        """Raise `NoRunError` if there is no such run."""

    def events(self, name: str) -> AsyncIterator[bytes]:
        """Yield a run's server-sent events, a snapshot first."""

    async def timeline(self, name: str, round_number: int) -> Timeline | None:
        """Return the lanes of a round, or None where they were not kept."""


def event(content: Snapshot | Change | None) -> bytes:
    """Return a server-sent event; None says only that the server is there. JSON has no line breaks of its own."""
    if content is None:
        return b'data: {"kind":"alive"}\n\n'
    return b"data: " + msgspec.json.encode(content) + b"\n\n"
