"""The end of a connection: after so many bytes or seconds, by a reset, a clean close or silence."""

from dataclasses import dataclass
from typing import Literal

from featherfed.bandwidth_sim.errors import LinkConfigError

Ending = Literal["reset", "close", "stall"]
ENDINGS: tuple[Ending, ...] = ("reset", "close", "stall")


@dataclass(frozen=True, slots=True)
class DropRule:
    """End each connection `after_bytes` carried in one direction or `after_s` seconds, whichever comes first.

    `how`: `reset` (RST), `close` (FIN in both directions), or `stall` (bytes vanish, nobody is told).
    """

    after_bytes: int | None = None
    after_s: float | None = None
    how: Ending = "reset"

    def __post_init__(self) -> None:
        if self.after_bytes is None and self.after_s is None:
            raise LinkConfigError("a drop needs a number of bytes or seconds, like 20kB or 30s")
        if self.after_bytes is not None and self.after_bytes < 1:
            raise LinkConfigError(f"a drop after {self.after_bytes} bytes would end every connection before it began")
        if self.after_s is not None and not self.after_s > 0:
            raise LinkConfigError(f"a drop after {self.after_s} s would end every connection before it began")
        if self.how not in ENDINGS:
            raise LinkConfigError(f"a drop cannot end by {self.how!r}: use one of {', '.join(ENDINGS)}")

    def allowance(self, carried_bytes: int) -> float:
        """Return how many more bytes this connection may carry in this direction (infinite without a limit)."""
        return float("inf") if self.after_bytes is None else max(0, self.after_bytes - carried_bytes)

    def ends(self, now_s: float, *, opened_at_s: float, carried_bytes: int) -> Ending | None:
        """Return how a connection ends that has carried so much since `opened_at_s`; None while it lives on."""
        by_bytes = self.after_bytes is not None and carried_bytes >= self.after_bytes
        by_time = self.after_s is not None and now_s >= opened_at_s + self.after_s
        return self.how if by_bytes or by_time else None
