"""The lanes of a round, one a phone: when it downloaded, trained, uploaded, and when it was gone.

A closed round's lanes are kept in `timeline.jsonl` of the run's folder, one line a round, so that a finished run can be
looked at round by round. Nothing depends on that file.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from featherfed.server.dashboard.view import Lane, PhoneState, Timeline


class KeptTimeline(msgspec.Struct, frozen=True):
    """A line of the file; `links` says which link each phone named, and its bytes a second."""

    timeline: Timeline
    links: dict[int, tuple[str, int]]


class Lanes:
    """The lanes of the round under way, and which parts of them are new."""

    def __init__(self) -> None:
        self.round = 0
        self.start_s = 0.0
        self.seconds: float | None = None
        self._lanes: dict[int, Lane] = {}
        self._sent: dict[int, int] = {}  # by shard: entries of its lane that were taken

    def open(self, round_number: int, start_s: float) -> None:
        """Begin a round."""
        self.round, self.start_s, self.seconds = round_number, start_s, None
        self._lanes, self._sent = {}, {}

    def close(self, seconds: float) -> None:
        """End the round: nothing is added any more."""
        self.seconds = seconds

    def enter(self, shards: Iterable[int]) -> None:
        """Give these phones a lane where they have none."""
        for shard in shards:
            self._lanes.setdefault(shard, [])

    def add(self, shard: int, state: PhoneState, now_s: float) -> None:
        """Note that a phone of the round is in another state."""
        lane = self._lanes.get(shard)
        if lane is not None and self.seconds is None and (not lane or lane[-1][1] != state):
            lane.append((round(now_s - self.start_s, 3), int(state)))

    def all(self) -> Timeline:
        """Return the whole round."""
        return Timeline(
            self.round, self.start_s, self.seconds, {shard: list(lane) for shard, lane in self._lanes.items()}
        )

    def take_new(self) -> Timeline:
        """Return what was added since the last call."""
        fresh = {}
        for shard, lane in self._lanes.items():
            sent = self._sent.get(shard, 0)
            if shard not in self._sent or len(lane) > sent:
                fresh[shard] = lane[sent:]
                self._sent[shard] = len(lane)
        return Timeline(self.round, self.start_s, self.seconds, fresh)


def path(folder: Path) -> Path:
    """Return where a run keeps its timelines."""
    return folder / "timeline.jsonl"


def keep(folder: Path, closed: Iterable[KeptTimeline]) -> None:
    """Append closed rounds; blocks."""
    lines = b"".join(msgspec.json.encode(kept) + b"\n" for kept in closed)
    if lines:
        with open(path(folder), "ab") as file:
            file.write(lines)


def read(folder: Path, round_number: int | None = None) -> KeptTimeline | None:
    """Return a round's kept lanes (None: the last round's), or None where there are none; blocks.

    A round that was closed twice, before and after a crash, counts as it was closed last; a torn last line is no line.
    """
    found = None
    try:
        with open(path(folder), "rb") as file:
            for line in file:
                try:
                    kept = msgspec.json.decode(line, type=KeptTimeline)
                except (msgspec.DecodeError, msgspec.ValidationError):
                    continue
                if round_number in (None, kept.timeline.round):
                    found = kept
    except OSError:
        return None
    return found
