"""The phones of a run: who plays which shard, who is connected, who has been away for too long."""

import asyncio
import math
from collections.abc import Iterable

from msgspec.structs import replace

from featherfed.server.phones.admission import allot
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.wire.messages import NOTHING, Hello


class Fleet:
    """Shards, names and connections; tells when a phone has been gone for longer than the grace time."""

    def __init__(
        self,
        shards: int,
        names: dict[int, str],
        *,
        grace_s: float,
        here: range | None = None,
    ) -> None:
        """`names` are the phones that an earlier life of this server knew; they may be on their way back.

        `here` are the shards of a gateway, which has not all.
        """
        self.shards = shards
        self._here = here
        self.names = dict(names)
        self.connections: dict[int, PhoneConnection] = {}
        self._newest: dict[int, int] = {}
        """By shard: the last Hello's number."""
        self._away: set[int] = set()
        self._grace_s = grace_s
        self._broke_s: dict[int, float] = {}
        """When the connections broke of phones that took no leave and are not back, by the loop's clock."""
        self.moved = asyncio.Event()
        """Set when a phone comes or leaves; whoever waits for that clears it before."""
        self.lost: asyncio.Queue[int] = asyncio.Queue()
        """Shards whose phones nobody waits for any longer, in the order in which that became known."""
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._hellos = 0
        self._arriving: set[PhoneConnection] = set()
        """Who has its shard, and is not connected yet: on a slow link Welcome takes its time."""
        self._stopped = False

    def start(self) -> None:
        """Let the grace time run for those who have not come back yet."""
        self.expect(self.names)
        # An earlier life of this server may have been killed while they were connected.
        self._broke_s = dict.fromkeys(self.names, asyncio.get_running_loop().time())

    def expect(self, shards: Iterable[int]) -> None:
        """Let the grace time run for the phones of these shards, as far as they are not here."""
        for shard in shards:
            if shard not in self.connections:
                self._let_grace_run(shard)

    def admit(self, phone: PhoneConnection, hello: Hello, *, run: str) -> None:
        """Give the phone its shard, or raise `NoShardError` or `ShardLaterError`."""
        if hello.shards == 0 and hello.run not in ("", run):
            # The shard that it had was one of another run.
            hello = replace(hello, shard=NOTHING)
        shard = allot(
            hello,
            shards=self.shards,
            held=self.names,
            away=self._away,
            absent=self._timers,
            free_in_s=self._free_in_s,
            here=self._here,
        )
        phone.shard, phone.name = shard, hello.name
        phone.partial = (hello.partial_digest, hello.partial_bytes)
        # An update of another run or shard it forgets when it hears its Welcome.
        keeps = hello.run == run and hello.shard in (NOTHING, shard)
        phone.pending_round = hello.pending_round if keeps else NOTHING
        self._hellos += 1
        phone.hello_number = self._newest[shard] = self._hellos
        self.names[shard] = hello.name
        # From now on it is not free for a third, who may say Hello before this one is connected.
        self._away.discard(shard)
        self._arriving.add(phone)

    def connect(self, phone: PhoneConnection) -> PhoneConnection | None:
        """Make this the phone's connection, if it is the newest and still open; return the one that is to be closed.

        On the way from its Hello to here a connection may be overtaken by the phone's next one.
        """
        self._arriving.discard(phone)
        if self.is_overtaken(phone):
            phone.replaced = True
            return phone
        if older := self.connections.get(phone.shard):
            older.replaced = True
        if not phone.open:
            return phone
        self.connections[phone.shard] = phone
        self._away.discard(phone.shard)
        self._broke_s.pop(phone.shard, None)
        self.moved.set()
        if timer := self._timers.pop(phone.shard, None):
            timer.cancel()
        return older

    def is_overtaken(self, phone: PhoneConnection) -> bool:
        """Whether its phone has said another Hello since this connection's."""
        return phone.hello_number != self._newest[phone.shard]

    def left(self, phone: PhoneConnection, *, for_good: bool = False) -> bool:
        """Note the end of a connection; return whether its phone was there and has no other one.

        `for_good`: it has said that it cannot play, and nobody waits for it.
        """
        self._arriving.discard(phone)
        if phone.shard not in self.names or self.connections.get(phone.shard, phone) is not phone:
            return False
        self.connections.pop(phone.shard, None)
        if not phone.parted:
            self._broke_s[phone.shard] = asyncio.get_running_loop().time()
        self.moved.set()
        if for_good and not self._comes(phone.shard):
            self._away.add(phone.shard)
            self.lost.put_nowait(phone.shard)
        else:
            # The shard of one that rests stays its own until it should be back.
            self._let_grace_run(phone.shard, phone.rests_s)
        return True

    def missing(self, within_s: float) -> set[int]:
        """Return whose connection broke so lately, without a word, and who is not back."""
        least_s = asyncio.get_running_loop().time() - within_s
        return {shard for shard, broke_s in self._broke_s.items() if broke_s > least_s}

    def missing_s(self, within_s: float) -> float:
        """Return in how many seconds nobody is `missing` any more, if none of them comes back."""
        broke_s = max(self._broke_s.values(), default=-math.inf)
        return max(0.0, broke_s + within_s - asyncio.get_running_loop().time())

    def stop(self) -> None:
        """Stop all timers, and start none for those whose connections end now."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _let_grace_run(self, shard: int, rests_s: float = 0.0) -> None:
        if earlier := self._timers.get(shard):
            earlier.cancel()
        if self._stopped:
            return
        timer = asyncio.get_running_loop().call_later(rests_s + self._grace_s, self._give_up, shard)
        self._timers[shard] = timer

    def _free_in_s(self, shard: int) -> float:
        """Return in how many seconds the shard of a phone that left may be given to another."""
        return self._timers[shard].when() - asyncio.get_running_loop().time()

    def _give_up(self, shard: int) -> None:
        del self._timers[shard]
        if self._comes(shard):
            self._let_grace_run(shard)
            return
        self._away.add(shard)
        self.lost.put_nowait(shard)

    def _comes(self, shard: int) -> bool:
        """Whether its phone has said Hello, and is not connected yet."""
        return any(phone.shard == shard for phone in self._arriving)
