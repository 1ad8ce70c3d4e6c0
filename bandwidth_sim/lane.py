"""A `Link` on a clock: the connections of one phone take turns on it, and what has passed is counted.

::

    ask ─► in line ─► take a piece when there is room ─► Link.send ─► under way ─► arrive when it is due

Nothing here sleeps or reads a socket: two timers of the event loop, one for room and one for the next arrival, carry
any number of connections. On real sockets the loop's clock is the machine's; in virtual time it jumps.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from featherfed.bandwidth_sim.drop import Ending
from featherfed.bandwidth_sim.link import PIECE_S, Link, LinkSpec

CallAt = Callable[..., asyncio.Handle]
"""`loop.call_at`, or what calls back for bytes that arrive: (when, callback, *arguments)."""


@dataclass(slots=True)
class Counters:
    """What one direction has carried: payload bytes accepted and delivered, pieces, and the delivery error."""

    accepted_bytes: int = 0
    delivered_bytes: int = 0
    pieces: int = 0
    worst_late_s: float = 0.0


class Sender(Protocol):
    """One direction of one connection, in line for its lane."""

    def take(self, room: int) -> Sized | None:
        """Return the next piece of at most `room` bytes, an empty one for the end, or None to leave the line."""

    def stays(self) -> bool:
        """Return whether there is more to send after a piece, so that it stays in line."""

    def arrive(self, piece: Any) -> bool:
        """Take a piece that has arrived; return whether it reached the receiver."""


class Lane:
    """One direction of one phone's link, shared by all of its connections: a piece each in turn."""

    def __init__(
        self, spec: LinkSpec, seed: int, loop: asyncio.AbstractEventLoop, arrive_at: CallAt | None = None
    ) -> None:
        """`arrive_at` is how the loop is told of arrivals; its timers unless told."""
        self.link = Link(spec, seed)
        self.counters = Counters()
        self.lateness: list[float] | None = None
        """Set to a list to collect by how many seconds each piece was late."""
        self._loop = loop
        self._arrive_at: CallAt = arrive_at or loop.call_at
        self._origin_s = loop.time()
        # One or two connections of a phone; a deque has 700 bytes for its first.
        self._line: list[Sender] = []
        self._room: asyncio.Handle | None = None
        self._under_way: deque[tuple[float, Sender, Sized]] = deque()
        self._arrival: asyncio.Handle | None = None

    @property
    def now_s(self) -> float:
        """The time on the link's own clock."""
        return self._loop.time() - self._origin_s

    def change(self, spec: LinkSpec) -> None:
        """Use other settings from now on; who waits for room asks again."""
        self.link.change(spec, self.now_s)
        if self._room is not None:
            self._room.cancel()
        self._serve(self.now_s)

    def ask(self, sender: Sender) -> None:
        """Put a sender in line, where it must not be already."""
        self._line.append(sender)
        if self._room is None:
            self._serve(self.now_s)

    def _serve(self, now_s: float) -> None:
        # The timer hands its deadline back, and that counts, not when the loop woke up: lateness must not add up to
        # a lower rate.
        self._room = None
        link, line = self.link, self._line
        while line:
            room_at_s = link.room_at(now_s)
            if room_at_s > now_s:
                # At rate zero it is never: only `change` goes on.
                if room_at_s < math.inf and not self._wakes_soon(room_at_s):
                    self._room = self._loop.call_at(self._origin_s + room_at_s, self._serve, room_at_s)
                return
            sender = line.pop(0)
            piece = sender.take(link.piece_bytes)
            if piece is None:
                continue
            self.counters.accepted_bytes += len(piece)
            self.counters.pieces += 1
            self._send(now_s, sender, piece)
            if sender.stays():
                line.append(sender)

    def _wakes_soon(self, room_at_s: float) -> bool:
        # Where the queue is long enough not to run dry, the next arrival serves the line as well: one wake of the
        # process for each piece in place of two, and waking is most of what a slow link costs.
        under_way = self._under_way
        return (
            bool(under_way)
            and self.link.spec.queue_s >= 2 * PIECE_S
            and under_way[0][0] - self._origin_s <= room_at_s + PIECE_S
        )

    def _send(self, now_s: float, sender: Sender, piece: Sized) -> None:
        due_s = self._origin_s + self.link.send(now_s, len(piece)).arrives_at_s
        self._under_way.append((due_s, sender, piece))
        if self._arrival is None:
            self._arrival = self._arrive_at(due_s, self._land)

    def _land(self) -> None:
        loop, under_way = self._loop, self._under_way
        try:
            while under_way and under_way[0][0] <= (now_s := loop.time()):
                due_s, sender, piece = under_way.popleft()
                if sender.arrive(piece):
                    self._delivered(len(piece), now_s - due_s)
            if self._line and self._room is None:
                self._serve(self.now_s)
        finally:
            self._arrival = self._arrive_at(under_way[0][0], self._land) if under_way else None

    def _delivered(self, num_bytes: int, late_s: float) -> None:
        counters = self.counters
        counters.delivered_bytes += num_bytes
        if late_s > counters.worst_late_s:
            counters.worst_late_s = late_s
        if self.lateness is not None:
            self.lateness.append(late_s)

    def follow(self, arrived: Callable[[], None]) -> None:
        """Send a packet without payload behind all that is under way, and call back when it arrives.

        It waits for no room; at rate zero nothing passes.
        """
        if self.link.room_at(self.now_s) < math.inf:
            self._send(self.now_s, _EmptyPacket(arrived), b"")

    async def pass_empty(self) -> None:
        """Return when a packet without payload, like those of a handshake, has had its turn and arrived."""
        arrived = asyncio.Event()
        self.ask(_EmptyPacket(arrived.set))
        await arrived.wait()


class _EmptyPacket:
    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived

    def take(self, room: int) -> bytes:
        return b""

    def stays(self) -> bool:
        return False

    def arrive(self, piece: bytes) -> bool:
        self._arrived()
        return False


async def handshake(up: Lane, down: Lane) -> None:
    """Return after TCP's first round trip: a packet up, its answer down."""
    await up.pass_empty()
    await down.pass_empty()


class DropWatch:
    """Ends one connection when its link's drop rule says so."""

    def __init__(
        self, lanes: tuple[Lane, Lane], loop: asyncio.AbstractEventLoop, end: Callable[[Ending], None]
    ) -> None:
        self._opened_at_s = [lane.now_s for lane in lanes]
        self._lanes = lanes
        self._end = end
        rules = [lane.link.spec.drop for lane in lanes]
        self._timers = [
            loop.call_later(rule.after_s, self.carried, lane, 0)
            for lane, rule in zip(lanes, rules, strict=True)
            if rule is not None and rule.after_s is not None
        ]

    def carried(self, lane: Lane, num_bytes: int) -> None:
        """Note how much the connection has delivered through a lane."""
        if lane.link.spec.drop is not None:
            opened_at_s = self._opened_at_s[self._lanes.index(lane)]
            # A timer may be a rounding early.
            how = lane.link.ends(lane.now_s + 1e-6, opened_at_s=opened_at_s, carried_bytes=num_bytes)
            if how is not None:
                self._end(how)

    def stop(self) -> None:
        """Watch no more."""
        for timer in self._timers:
            timer.cancel()
