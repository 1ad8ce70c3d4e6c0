"""Where the page's data comes from: the run that is served, or runs that lie in a folder."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from featherfed.server.dashboard.view import Change, Snapshot, Timeline


class NoRunError(Exception):
    """There is no run of that name; the page answers 404."""


class RunLine(msgspec.Struct, frozen=True):
    """A run in the list of runs; `accuracy` is the best so far."""

    name: str
    live: bool
    closed: int
    rounds: int
    accuracy: float | None


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
