"""mahimahi's traces: one opportunity a line, each lets one packet's worth leave."""

import re
from dataclasses import dataclass
from pathlib import Path

from featherfed.bandwidth_sim.errors import LinkConfigError

PACKET_BYTES = 1504
"""What one opportunity carries: 1500 bytes and the tunnel's 4."""

_STAMP = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Trace:
    """Delivery opportunities in milliseconds since the start, non-decreasing; it wraps at its last stamp.

    Source: mahimahi, mm-link(1) (Netravali et al., USENIX ATC 2015). A stamp written twice gives two opportunities.
    """

    stamps_ms: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.stamps_ms or self.stamps_ms[-1] <= 0:
            raise LinkConfigError("a trace needs a last stamp after 0 ms")

    @property
    def mean_bytes_per_s(self) -> float:
        """The mean rate on the wire."""
        return len(self.stamps_ms) * PACKET_BYTES / (self.stamps_ms[-1] / 1000)


def read_trace(path: Path) -> Trace:
    """Read a trace; raises `LinkConfigError` with the line's number where it is malformed."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise LinkConfigError(f"cannot read the trace {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LinkConfigError(f"the trace {path} is not text: a trace has one millisecond stamp a line") from error
    stamps: list[int] = []
    for number, line in enumerate(lines, 1):
        if not _STAMP.fullmatch(line.strip()):
            raise LinkConfigError(
                f"{path}, line {number}: {line[:40]!r} is not a whole number of milliseconds of up to 15 digits"
            )
        stamp = int(line)
        if stamps and stamp < stamps[-1]:
            raise LinkConfigError(
                f"{path}, line {number}: {stamp} ms comes after {stamps[-1]} ms: stamps never go back"
            )
        stamps.append(stamp)
    if not stamps or stamps[-1] == 0:
        raise LinkConfigError(f"{path}, line {max(1, len(stamps))}: a trace needs a last stamp after 0 ms")
    return Trace(tuple(stamps))


class Opportunities:
    """Where in a trace a link stands; asked in the order of time."""

    def __init__(self, trace: Trace) -> None:
        self._stamps_ms = trace.stamps_ms
        self._index = 0
        self._lap_ms = 0
        self._left_bytes = float(PACKET_BYTES)

    def _at_s(self) -> float:
        return (self._lap_ms + self._stamps_ms[self._index]) / 1000

    def _next(self) -> None:
        self._index += 1
        self._left_bytes = float(PACKET_BYTES)
        if self._index == len(self._stamps_ms):
            self._index = 0
            self._lap_ms += self._stamps_ms[-1]

    def skip_to(self, now_s: float) -> float:
        """Lose the opportunities before `now_s`; return when the next one comes, `now_s` itself or later."""
        period_ms = self._stamps_ms[-1]
        laps = int((now_s * 1000 - self._lap_ms) // period_ms) - 1
        if laps > 0:
            self._index, self._left_bytes = 0, float(PACKET_BYTES)
            self._lap_ms += laps * period_ms
        while self._at_s() < now_s:
            self._next()
        return self._at_s()

    def take(self, wire_bytes: float) -> float:
        """Use the present opportunity for up to `wire_bytes`; return how many of them it carried."""
        taken = min(wire_bytes, self._left_bytes)
        self._left_bytes -= taken
        if self._left_bytes <= 0:
            self._next()
        return taken
