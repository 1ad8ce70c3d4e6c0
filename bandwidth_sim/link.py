"""One direction of one phone's link, as a pure function of time.

::

    send(now, n)                                                                          Passage
      │                                                                                      ▲
      ▼                                                                                      │
    room_at ──► headers ──► loss ──► rate ─or─ trace ──► outage ──► delay ± jitter ──► in order ──► ends?
    queue_s     n·(1+h/mss)  copies,  busy seconds,       down, and   delay_s, one       nothing     drop: reset,
    back-       charged      cap      FIFO, no credit     TCP's       draw a piece;      overtakes   close, stall
    pressure                          for idle time       back-off    a lost packet
                                                                      adds a round trip

Each box is one class in a file of its own. Nothing here reads a clock or sleeps: the relay and the virtual loop do.
"""

import math
from dataclasses import dataclass

from featherfed.bandwidth_sim.drop import DropRule, Ending
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.jitter import Jitter
from featherfed.bandwidth_sim.loss import Loss
from featherfed.bandwidth_sim.outage import Outages, OutageSpec, Schedule
from featherfed.bandwidth_sim.rate import Rate
from featherfed.bandwidth_sim.trace import Opportunities, Trace

MSS = 1448
"""Payload bytes of a full TCP segment over Ethernet, with timestamps."""
ETHERNET_OVERHEAD_BYTES = 66
"""Ethernet 14, IPv4 20, TCP 20, timestamps 12: what the kernel's shaper charges for each segment."""
MAX_PIECE_BYTES = 32 * 1024
"""No piece on a fast link is larger: the sender is held back in steps no coarser than this."""
UNLIMITED_PIECE_BYTES = 192 * 1024
"""On one that has neither rate nor delay, loss, outages or drops: a chunk of 128 KiB with its headers is one piece."""
PIECE_S = 0.04
"""A piece is so many seconds of a link, between one segment and `MAX_PIECE_BYTES`."""
SLACK_BYTES = 64 * 1024
"""What a receiver's buffers take beside what is under way."""
UNLIMITED_WINDOW_BYTES = 1 << 20
"""What a direction without a rate may hold back while its receiver does not read."""


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """The settings of one direction. Immutable and hashable.

    `rate_bytes_per_s`: on the wire, headers included; None is unlimited, 0 lets nothing pass. `delay_s`: one way.
    `jitter_s`: half-width of a uniform deviation. `loss`: fraction of packets, below 1; the stream loses no byte.
    `queue_s`: how many seconds of traffic the bottleneck holds before the sender must wait. `overhead_bytes`: headers
    charged for every `mss` payload bytes. `trace`: delivery opportunities in place of a rate. Raises LinkConfigError.
    """

    rate_bytes_per_s: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    queue_s: float = 0.4
    overhead_bytes: float = ETHERNET_OVERHEAD_BYTES
    mss: int = MSS
    outage: OutageSpec | None = None
    drop: DropRule | None = None
    trace: Trace | None = None

    def __post_init__(self) -> None:
        for name in ("delay_s", "jitter_s", "queue_s", "overhead_bytes"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise LinkConfigError(f"{name} must be finite and not negative, not {value}")
        if self.rate_bytes_per_s is not None and not 0 <= self.rate_bytes_per_s < math.inf:
            raise LinkConfigError(f"rate_bytes_per_s must be finite and not negative, not {self.rate_bytes_per_s}")
        if not 0 <= self.loss < 1:
            raise LinkConfigError(f"loss must be at least 0% and less than 100%, not {self.loss:.0%}")
        if self.mss < 1:
            raise LinkConfigError(f"mss must be at least 1 byte, not {self.mss}")
        if self.trace is not None and self.rate_bytes_per_s is not None:
            raise LinkConfigError("a trace takes the place of a rate: give one of the two")

    @property
    def mean_wire_bytes_per_s(self) -> float:
        """The rate on the wire while up, loss not counted; infinite without a limit."""
        if self.trace is not None:
            return self.trace.mean_bytes_per_s
        return math.inf if self.rate_bytes_per_s is None else self.rate_bytes_per_s

    @property
    def goodput_bytes_per_s(self) -> float:
        """Payload bytes a second that a long transfer reaches in theory while up; infinite without a limit."""
        loss = Loss(self.loss, 2 * self.delay_s, self.mss, 0)
        wire = loss.capped(self.mean_wire_bytes_per_s)
        return (math.inf if wire is None else wire) * self.mss / (self.mss + self.overhead_bytes) / loss.copies

    @property
    def longest_outage_s(self) -> float:
        """The longest outage of a schedule, or three times the mean of a random one; 0 without outages."""
        if self.outage is None:
            return 0.0
        if isinstance(self.outage, Schedule):
            return max(down_s for _, down_s in self.outage.steps)
        return 3 * self.outage.mean_down_s

    @property
    def piece_bytes(self) -> int:
        """How many bytes to put on the link at once: about `PIECE_S` of it, at least one segment.

        Where nothing holds a sender back, and all pieces arrive at once, no message is cut into several.
        """
        if self == _UNLIMITED:
            return UNLIMITED_PIECE_BYTES
        return int(min(max(self.mss, self.goodput_bytes_per_s * PIECE_S), MAX_PIECE_BYTES))

    @property
    def window_bytes(self) -> int:
        """How much one connection may have under way and not yet read: the queue, the path and a receiver's buffers.

        A path of high rate and long delay holds at most a second of it.
        """
        goodput = self.goodput_bytes_per_s
        if not math.isfinite(goodput):
            return UNLIMITED_WINDOW_BYTES
        in_flight = goodput * (self.queue_s + 3 * self.delay_s + self.jitter_s) + SLACK_BYTES
        return int(min(in_flight, max(UNLIMITED_WINDOW_BYTES, self.mean_wire_bytes_per_s)))


_UNLIMITED = LinkSpec()


@dataclass(frozen=True, slots=True)
class Passage:
    """When the last byte of a piece leaves the bottleneck and when it arrives; infinite if nothing passes."""

    departs_at_s: float
    arrives_at_s: float


class Link:
    """One direction of one phone's link: first in, first out, shared by all of the phone's connections.

    Times are seconds on any clock that starts near 0 (outages and traces begin there); calls come in the order of
    time. Both directions of a phone take the same `seed`, so that their outages coincide.
    """

    def __init__(self, spec: LinkSpec, seed: int) -> None:
        self._seed = seed
        self._outages = Outages(spec.outage, seed)
        self._free_at_s = 0.0
        self._last_arrival_s = 0.0
        self._set(spec)

    def _set(self, spec: LinkSpec) -> None:
        self.spec = spec
        self.piece_bytes, self.window_bytes = spec.piece_bytes, spec.window_bytes
        self._unlimited = spec == _UNLIMITED
        self._loss = Loss(spec.loss, 2 * spec.delay_s, spec.mss, self._seed)
        self._rate = Rate(self._loss.capped(spec.rate_bytes_per_s))
        self._jitter = Jitter(spec.jitter_s, self._seed)
        self._opportunities = None if spec.trace is None else Opportunities(spec.trace)
        self._wire_per_byte = (1 + spec.overhead_bytes / spec.mss) * self._loss.copies

    def change(self, spec: LinkSpec, now_s: float) -> None:
        """Use other settings for what is sent from `now_s` on; what already waits keeps its times."""
        if spec.outage != self.spec.outage:
            self._outages = Outages(spec.outage, self._seed)
        if not math.isfinite(self._free_at_s):
            self._free_at_s = self._last_arrival_s = now_s
        self._set(spec)

    def room_at(self, now_s: float) -> float:
        """Return when a sender that respects the queue may put its next piece: `now_s` or later.

        Infinite at rate zero: until `change`, nothing passes.
        """
        if self.spec.rate_bytes_per_s == 0:
            return math.inf
        return max(now_s, self._free_at_s - self.spec.queue_s)

    def send(self, now_s: float, num_bytes: int) -> Passage:
        """Put `num_bytes` of payload on the link; nothing sent later departs or arrives before them."""
        start_s = max(now_s, self._free_at_s)
        if self._unlimited:
            self._free_at_s, self._last_arrival_s = start_s, max(start_s, self._last_arrival_s)
            return Passage(start_s, self._last_arrival_s)
        departs_at_s = self._served_at(start_s, num_bytes * self._wire_per_byte)
        self._free_at_s = departs_at_s
        delay_s = max(0.0, self.spec.delay_s + self._jitter.draw_s()) + self._loss.delay_s(num_bytes)
        self._last_arrival_s = max(self._last_arrival_s, departs_at_s + delay_s)
        return Passage(departs_at_s, self._last_arrival_s)

    def _served_at(self, start_s: float, wire_bytes: float) -> float:
        if self._opportunities is None:
            return self._outages.served_at(start_s, self._rate.busy_s(wire_bytes))
        at_s = start_s
        while wire_bytes > 0:
            at_s = self._opportunities.skip_to(at_s)
            up_at_s = self._outages.up_from(at_s)
            if up_at_s > at_s:
                at_s = up_at_s
            else:
                wire_bytes -= self._opportunities.take(wire_bytes)
        return at_s

    def allowance(self, carried_bytes: int) -> float:
        """Return how many more bytes a connection that carried so many this way may carry (infinite without drop)."""
        return math.inf if self.spec.drop is None else self.spec.drop.allowance(carried_bytes)

    def ends(self, now_s: float, *, opened_at_s: float, carried_bytes: int) -> Ending | None:
        """Return how a connection ends by now that was opened then and carried so much this way; None if it lives."""
        drop = self.spec.drop
        return None if drop is None else drop.ends(now_s, opened_at_s=opened_at_s, carried_bytes=carried_bytes)
