"""What a run tells those who watch it: a terminal, a log, a page."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One closed round. Byte counts are the socket's, of this round, over all phones."""

    round_number: int
    rounds: int
    cohort: int
    accepted: int
    late: int
    failed: int
    loss: float | None
    accuracy: float | None
    seconds: float
    uplink_bytes: int
    downlink_bytes: int


class Watcher(Protocol):
    """Is told what happens, and must return at once."""

    def listening(self, address: str, run: str) -> None:
        """Phones may come."""

    def phone_came(self, name: str, shard: int, connected: int, expected: int) -> None:
        """A phone was admitted."""

    def phone_left(self, name: str, connected: int) -> None:
        """A phone's connection ended."""

    def fault(self, name: str, code: int, sentence: str) -> None:
        """A connection was ended for what its phone did."""

    def round_opened(self, round_number: int, attempt: int, cohort: int) -> None:
        """A cohort was asked."""

    def update_accepted(self, round_number: int, accepted: int, target: int) -> None:
        """An update counts."""

    def round_closed(self, summary: RoundSummary) -> None:
        """A round's model is durable."""
