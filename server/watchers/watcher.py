"""What a run tells those who watch it: a terminal, a log, a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featherfed.server.measures import Measures, figures
from featherfed.server.storage.spent import Spent


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One closed round. `spent` is what all phones' sockets carried in it, both ways, and handshakes beside that.

    A round that was not evaluated has no loss and no metrics; what a metric said that is no number is here as it is.
    """

    round_number: int
    rounds: int
    cohort: int
    accepted: int
    late: int
    failed: int
    loss: float | None
    metrics: Mapping[str, float]
    seconds: float
    spent: Spent
    phones: int | None = None
    """Whose updates are in the sums that were accepted, where those of gateways were."""
    epsilon: float | None = None
    """With differential privacy: the ε of the phone that has paid most up to this round."""
    measures: Measures = ()
    """What evaluations of this run say, whether or not this round had one."""

    @property
    def figures(self) -> dict[str, float | None]:
        """The values of this round's evaluation by the names of `measures`."""
        return figures(self.loss, self.metrics)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A phone that came. `link` and `link_bytes_per_s` (up, 0: not known) are what it says of its way here."""

    shard: int
    name: str
    link: str
    link_bytes_per_s: int


class Watcher:
    """Is told what happens, and must return at once; does nothing by itself.

    What a phone does is told by its shard: its name may change hands. A phone that is not downloading or uploading in
    a round that still wants its update is training, or about to.
    """

    def listening(self, address: str, run: str) -> None:
        """Phones may come."""

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """A phone was admitted."""

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """A phone's connection ended."""

    def phone_rests(self, shard: int, name: str, connected: int) -> None:
        """A phone left because it was told to: no round asks it before a later one."""

    def fault(self, name: str, code: int, sentence: str) -> None:
        """A connection was ended for what its phone did."""

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """A cohort was asked; `cohort` holds everyone who was asked so far, in all attempts."""

    def download_began(self, shard: int, round_number: int) -> None:
        """A phone is being sent its task and what it lacks of the model."""

    def download_ended(self, shard: int, round_number: int) -> None:
        """The last byte was handed to the phone's socket."""

    def upload_advanced(self, shard: int, round_number: int, durable: int, size: int) -> None:
        """So many bytes of a phone's update are durable."""

    def update_arrived(self, shard: int, round_number: int, arrived: int, target: int) -> None:
        """An update is here, and counts once the sum of its circle is open; `arrived` are here or count."""

    def update_accepted(self, shard: int, round_number: int, accepted: int, target: int) -> None:
        """An update counts."""

    def cancelled(self, shard: int, round_number: int) -> None:
        """A phone's update is not waited for any more."""

    def version_published(self, summary: RoundSummary) -> None:
        """A round's model is durable; what it is worth is not known yet, and told by `round_closed`."""

    def round_closed(self, summary: RoundSummary) -> None:
        """A round is over, and its model evaluated if that was due: told before the next round's, which may be open."""

    def note(self, sentence: str) -> None:
        """Something beside the rounds has happened that the operator should know."""

    def ended(self, pause: str | None) -> None:
        """The run is over: its rounds are done, or why it pauses."""


class Watchers(Watcher):
    """Tells several watchers, in their order."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = list(watchers)

    def add(self, watcher: Watcher) -> None:
        """Tell one more from now on."""
        self._watchers.append(watcher)

    def listening(self, address: str, run: str) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.listening(address, run)

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.phone_came(phone, connected, expected)

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.phone_left(shard, name, connected)

    def phone_rests(self, shard: int, name: str, connected: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.phone_rests(shard, name, connected)

    def fault(self, name: str, code: int, sentence: str) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.fault(name, code, sentence)

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.round_opened(round_number, attempt, cohort)

    def download_began(self, shard: int, round_number: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.download_began(shard, round_number)

    def download_ended(self, shard: int, round_number: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.download_ended(shard, round_number)

    def upload_advanced(self, shard: int, round_number: int, durable: int, size: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.upload_advanced(shard, round_number, durable, size)

    def update_arrived(self, shard: int, round_number: int, arrived: int, target: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.update_arrived(shard, round_number, arrived, target)

    def update_accepted(self, shard: int, round_number: int, accepted: int, target: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.update_accepted(shard, round_number, accepted, target)

    def cancelled(self, shard: int, round_number: int) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.cancelled(shard, round_number)

    def version_published(self, summary: RoundSummary) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.version_published(summary)

    def round_closed(self, summary: RoundSummary) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.round_closed(summary)

    def note(self, sentence: str) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.note(sentence)

    def ended(self, pause: str | None) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.ended(pause)
