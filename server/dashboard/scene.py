"""A run as the page shows it: a watcher that remembers, without I/O and without a clock of its own."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from featherfed.by_round import ByRound
from featherfed.server.config import RunConfig
from featherfed.server.dashboard.sums import Sums
from featherfed.server.dashboard.timeline import KeptTimeline, Lanes
from featherfed.server.dashboard.view import (
    About,
    Change,
    FaultRow,
    FleetRow,
    PhoneRow,
    PhoneState,
    RoundRow,
    RunStatus,
    Snapshot,
    Timeline,
)
from featherfed.server.measures import finite
from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.spent import Spent
from featherfed.server.watchers.watcher import RoundSummary, Visitor, Watcher

UPLOAD_BYTES = 64
"""What a training phone may send before it counts as uploading: a pong and a close take less."""
KEPT_FAULTS = 500


class Sockets(Protocol):
    """What the scene asks of the run's connections. All of it is quick, and by shard."""

    def clock_s(self) -> float:
        """Return the run's clock."""

    def unacknowledged(self, shard: int) -> int:
        """Return how many bytes were sent that the phone's kernel does not have yet."""

    def frame_began_s(self, shard: int) -> float | None:
        """Return when the first bytes of the message came that is coming or came last, by the run's clock."""


@dataclass(slots=True)
class _Phone:
    visitor: Visitor
    state: PhoneState = PhoneState.AWAY
    since_s: float = 0.0
    up_before: int = 0  # the socket's bytes up when the state began
    wasted_before: int = 0
    told: bool = False  # whether an upload is known from its first message, and not only from its bytes
    durable: int = 0
    up_durable: int = 0  # the same when `durable` was told
    size: int = 0
    bytes_per_s: float = 0.0


class Scene(Watcher):
    """Follows a run. `expected_bytes` is what an update should take, until its phone says what it does take."""

    def __init__(
        self,
        config: RunConfig,
        about: About,
        sums: Sums,
        sockets: Sockets,
        *,
        expected_bytes: ByRound[int],
        past: Snapshot | None = None,
    ) -> None:
        """`past` is what the disk knows of a run that is resumed."""
        self._config = config
        self.about = about
        self._sums = sums
        self._sockets = sockets
        self._clock_s = sockets.clock_s
        self._expected_bytes = expected_bytes
        self.phase = "gathering"
        self.reason: str | None = None
        self._round, self._attempt, self._accepted = 0, 0, 0
        self._cohort: frozenset[int] = frozenset()
        self.connected = 0
        self._resting: set[int] = set()
        self.rounds: dict[int, RoundRow] = {row.round: row for row in past.rounds} if past else {}
        self.faults: list[FaultRow] = list(past.faults) if past else []
        self.fault_codes = Counter(row.code for row in self.faults)
        self._new_faults = 0
        self._phones = {row.shard: _Phone(Visitor(*_fields(row))) for row in past.fleet} if past else {}
        self._lanes = Lanes()
        if past and past.timeline and past.timeline.seconds is None:
            # A round that was open when the server stopped goes on with its own start.
            self._lanes.open(past.timeline.round, past.timeline.start_s)
        self._closed: list[KeptTimeline] = []
        self.wake: Callable[[], None] = lambda: None
        """Called when `drain` should be called soon."""
        self._draining: set[int] = set()  # phones whose kernel has not got all of a model
        self._changed_rounds: set[int] = set()
        self._changed_phones: set[int] = set()
        self._changed_fleet: set[int] = set()
        self._sums.update()

    # What the run tells

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Note who it is; what it does is told by what follows."""
        self.connected = connected
        self._resting.discard(phone.shard)
        known = self._phones.get(phone.shard)
        if known is None or known.visitor != phone:
            self._phones[phone.shard] = _Phone(phone)
            self._changed_fleet.add(phone.shard)
        if phone.shard in self._cohort and self.phase == "open":
            self._lanes.enter([phone.shard])
        self._enter(phone.shard, PhoneState.WAITING)

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """Note that a phone dropped."""
        self.connected = connected
        over = self.phase in ("done", "paused")
        self._enter(shard, PhoneState.AWAY if over else PhoneState.DROPPED)

    def phone_rests(self, shard: int, name: str, connected: int) -> None:
        """Note a phone that is not needed now; what it has done in this round stays to be seen until the next one."""
        self.connected = connected
        self._resting.add(shard)
        if self._state(shard) not in (PhoneState.ACCEPTED, PhoneState.LATE):
            self._enter(shard, PhoneState.AWAY)

    def fault(self, name: str, code: int, sentence: str) -> None:
        """Note a fault."""
        self.faults.append(FaultRow(round(self._clock_s(), 3), max(1, self._round), name, int(code), sentence))
        self.fault_codes[int(code)] += 1
        self._new_faults += 1
        del self.faults[:-KEPT_FAULTS]

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """Begin a round, or widen it with the cohort of another attempt."""
        if round_number != self._round:
            # Before a restart it may have been open, and some of it done.
            self._accepted = self.rounds[round_number].accepted if round_number in self.rounds else 0
        if round_number != self._lanes.round:
            self._lanes.open(round_number, self._clock_s())
        self.phase, self._round, self._attempt, self._cohort = "open", round_number, attempt, cohort
        self._lanes.enter(cohort)
        for shard, phone in self._phones.items():
            if phone.state in (PhoneState.ACCEPTED, PhoneState.LATE, PhoneState.SUMMING) and not attempt:
                self._enter(shard, PhoneState.AWAY if shard in self._resting else PhoneState.WAITING)
            elif shard in cohort:
                self._lanes.add(shard, phone.state, self._clock_s())
        self.rounds[round_number] = RoundRow(
            round_number, "open", len(cohort), self._accepted, 0, 0, None, {}, None, {}, {}
        )
        self._changed_rounds.add(round_number)

    def download_began(self, shard: int, round_number: int) -> None:
        """Note it."""
        self._enter(shard, PhoneState.DOWNLOADING)

    def download_ended(self, shard: int, round_number: int) -> None:
        """Note that the phone will have what it needs when its link has carried it."""
        if self._state(shard) is PhoneState.DOWNLOADING:
            self._draining.add(shard)
            self.drain()
            if shard in self._draining:
                self.wake()

    def upload_advanced(self, shard: int, round_number: int, durable: int, size: int) -> None:
        """Note how far an upload has come."""
        phone = self._phones.get(shard)
        if phone is None or phone.state is PhoneState.DROPPED:
            return
        if phone.state is not PhoneState.UPLOADING:
            self._enter(shard, PhoneState.UPLOADING, self._began_s(shard, phone))
        phone.durable, phone.size, phone.up_durable, phone.told = durable, size, self._up(shard), True
        self._changed_phones.add(shard)

    def update_arrived(self, shard: int, round_number: int, arrived: int, target: int) -> None:
        """Note an update that waits for the sum of its circle."""
        self._accepted = arrived
        self._note_rate(shard)
        self._enter(shard, PhoneState.SUMMING)

    def update_accepted(self, shard: int, round_number: int, accepted: int, target: int) -> None:
        """Note an update that counts."""
        self._accepted = accepted
        self._note_rate(shard)
        self._enter(shard, PhoneState.ACCEPTED)

    def cancelled(self, shard: int, round_number: int) -> None:
        """Note a phone that is late."""
        if self._state(shard) not in (None, PhoneState.DROPPED):
            self._enter(shard, PhoneState.LATE)

    def version_published(self, summary: RoundSummary) -> None:
        """Note the end of a round."""
        self.phase = "closing"
        self._note_closed(summary)
        self._lanes.close(summary.seconds)
        links = {shard: (phone.visitor.link, phone.visitor.link_bytes_per_s) for shard, phone in self._phones.items()}
        self._closed.append(KeptTimeline(self._lanes.all(), links))

    def round_closed(self, summary: RoundSummary) -> None:
        """Note a round's figures, which may come when the next one is open."""
        self._note_closed(summary)

    def ended(self, pause: str | None) -> None:
        """Note the end."""
        self.phase, self.reason = ("done", None) if pause is None else ("paused", pause)

    # What the page takes

    @property
    def drains(self) -> bool:
        """Whether a model is on its way to somebody."""
        return bool(self._draining)

    def drain(self) -> None:
        """Let phones train whose links have carried the model; called more often than `look`, for a few phones."""
        for shard in list(self._draining):
            if self._state(shard) is not PhoneState.DOWNLOADING:
                self._draining.discard(shard)
            elif self._sockets.unacknowledged(shard) == 0:
                self._draining.discard(shard)
                self._enter(shard, PhoneState.TRAINING)

    def look(self) -> None:
        """Take in what the ledger counted: a phone that trains and sends is uploading."""
        rounds, shards = self._sums.update()
        self._changed_rounds |= rounds & self.rounds.keys()
        for shard in shards & self._phones.keys():
            self._changed_phones.add(shard)
            phone = self._phones[shard]
            before = phone.up_before
            sent = self._up(shard) - before - (self._sums.of_phone(shard)["uplink"].wasted - phone.wasted_before)
            if phone.state is PhoneState.UPLOADING and not phone.told and sent <= UPLOAD_BYTES:
                # It was the rest of an update that is not wanted any more.
                self._enter(shard, PhoneState.TRAINING)
            elif phone.state is PhoneState.TRAINING and sent > UPLOAD_BYTES:
                self._enter(shard, PhoneState.UPLOADING, self._began_s(shard, phone))
                phone.size, phone.told = self._expected_bytes.at(self._round), False
                phone.up_before = phone.up_durable = before
            self._note_rate(shard)

    def changes(self) -> Change:
        """Return what is new since the last call, `look` included."""
        self.look()
        change = Change(
            self._standing(),
            [self._round_row(number) for number in sorted(self._changed_rounds)],
            [self._fleet_row(shard) for shard in sorted(self._changed_fleet)],
            [self._phone_row(shard) for shard in sorted(self._changed_phones)],
            self.faults[len(self.faults) - self._new_faults :],
            self._lanes.take_new() if self._lanes.round else None,
        )
        self._changed_rounds, self._changed_fleet, self._changed_phones = set(), set(), set()
        self._new_faults = 0
        return change

    def snapshot(self) -> Snapshot:
        """Return all of it."""
        shards = sorted(self._phones)
        return Snapshot(
            self.about,
            self._standing(),
            [self._round_row(number) for number in sorted(self.rounds)],
            [self._fleet_row(shard) for shard in shards],
            [self._phone_row(shard) for shard in shards],
            self.faults,
            self._lanes.all() if self._lanes.round else None,
        )

    def timeline(self, round_number: int) -> Timeline | None:
        """Return a round's lanes if it is the one under way."""
        return self._lanes.all() if round_number == self._lanes.round else None

    def take_closed(self) -> list[KeptTimeline]:
        """Return the timelines of rounds that closed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def states(self) -> Counter[PhoneState]:
        """Return how many phones are in each state."""
        return Counter(phone.state for phone in self._phones.values())

    def totals(self) -> dict[str, Traffic]:
        """Return the traffic of all rounds by direction."""
        totals = {"uplink": Traffic(), "downlink": Traffic()}
        for of_round in self._sums.rounds.values():
            for way, traffic in of_round.items():
                totals[way].add(traffic)
        return totals

    def _note_closed(self, summary: RoundSummary) -> None:
        number = summary.round_number
        self.rounds[number] = RoundRow(
            number, "closed", summary.cohort, summary.accepted, summary.late, summary.failed,
            finite(summary.loss), {name: finite(value) for name, value in summary.metrics.items()}, summary.seconds,
            {}, {}, epsilon=summary.epsilon,
        )  # fmt: skip
        self._changed_rounds.add(number)
        self._sums.recount(number)

    def _standing(self) -> RunStatus:
        return RunStatus(
            self.phase, self.reason, round(self._clock_s(), 3), self._round, self._attempt, len(self._cohort),
            self._accepted, self._config.closing_updates_at(self._round), self.connected,
        )  # fmt: skip

    def _round_row(self, number: int) -> RoundRow:
        row, traffic = self.rounds[number], self._sums.of_round(number)
        spent = Spent.of(traffic["uplink"], traffic["downlink"])
        return RoundRow(
            number, row.state, row.cohort, self._accepted if row.state == "open" else row.accepted, row.late,
            row.failed, row.loss, row.metrics, row.seconds, traffic["uplink"].as_dict(), traffic["downlink"].as_dict(),
            spent.both, spent.handshakes, row.epsilon,
        )  # fmt: skip

    def _fleet_row(self, shard: int) -> FleetRow:
        visitor = self._phones[shard].visitor
        return FleetRow(shard, visitor.name, visitor.link, visitor.link_bytes_per_s)

    def _phone_row(self, shard: int) -> PhoneRow:
        phone, traffic = self._phones[shard], self._sums.of_phone(shard)
        up, down = (traffic[way].socket + traffic[way].handshake for way in ("uplink", "downlink"))
        return PhoneRow(
            shard, phone.state, round(phone.since_s, 3), self._progress(phone, up), int(phone.bytes_per_s), up, down
        )

    def _progress(self, phone: _Phone, up: int) -> float:
        if phone.state is not PhoneState.UPLOADING or not phone.size:
            return float(phone.state in (PhoneState.ACCEPTED, PhoneState.SUMMING))
        # What is durable is certain; what the socket carried since then is part of a frame that is not whole yet.
        return round(min((phone.durable + up - phone.up_durable) / phone.size, 1.0), 3)

    def _state(self, shard: int) -> PhoneState | None:
        phone = self._phones.get(shard)
        return phone.state if phone else None

    def _up(self, shard: int) -> int:
        uplink = self._sums.of_phone(shard)["uplink"]
        return uplink.socket + uplink.handshake

    def _began_s(self, shard: int, phone: _Phone) -> float:
        """Return when the first bytes of an upload came, which is before its first message was whole."""
        began_s, now_s = self._sockets.frame_began_s(shard), self._clock_s()
        return now_s if began_s is None else max(phone.since_s, began_s)

    def _enter(self, shard: int, state: PhoneState, now_s: float | None = None) -> None:
        phone = self._phones.get(shard)
        if phone is None or phone.state is state:
            return
        now_s = self._clock_s() if now_s is None else now_s
        phone.state, phone.since_s, phone.durable, phone.size = state, now_s, 0, 0
        phone.up_before = phone.up_durable = self._up(shard)
        phone.wasted_before = self._sums.of_phone(shard)["uplink"].wasted
        phone.told = False
        self._lanes.add(shard, state, now_s)
        self._changed_phones.add(shard)

    def _note_rate(self, shard: int) -> None:
        """Note an upload's goodput: what the socket carried since it began, over the time since then."""
        phone = self._phones.get(shard)
        if phone is not None and phone.state is PhoneState.UPLOADING:
            elapsed_s = self._clock_s() - phone.since_s
            if elapsed_s > 0.2:
                phone.bytes_per_s = (self._up(shard) - phone.up_before) / elapsed_s


def _fields(row: FleetRow) -> tuple[int, str, str, int]:
    return row.shard, row.name, row.link, row.link_bytes_per_s
