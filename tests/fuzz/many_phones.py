"""Phones that do anything the protocol allows at any moment, led by seeded chance; a server made of its real parts.

All in virtual time. A phone here keeps to docs/PROTOCOL.md, but for the faults that it is told to make: it drops
connections in the middle of anything, comes back under its name while its old connection still sends, forgets what it
knew and trains to other bytes, answers late or not at all, asks and announces again. `World.calm` ends all that: from
then on every phone is there, answers at once, and keeps the connection that it has. Nobody comes anew then, so that one
who is forgotten stays forgotten.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.virtual import VirtualDialer
from featherfed.wire.closing import Close
from featherfed.wire.messages import (
    NOTHING,
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    AnyMessage,
    Cancel,
    Finish,
    Hello,
    ModelBegin,
    ModelChunk,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
    digest_of,
    pack,
    unpack,
)
from featherfed.wire.session import Role, Session

from .world import HOST, LINKS, PORT, TRAINS_S, World


class CutError(Exception):
    """The phone's own end of a connection; `how` it ends."""

    def __init__(self, how: str) -> None:
        self.how = how


@dataclass(frozen=True, slots=True)
class Update:
    """A finished update."""

    round: int
    payload: bytes


class LivelyPhone:
    """One phone over all of its connections."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.random = random.Random(f"{world.seed} {number}")
        self.name = f"p{number}"
        self.anew = 0
        """So often it forgot how it trains, and comes to other bytes."""
        self.hurried = False
        """Whether it left a connection behind all of an update at once, and looks closely at what it is told of it."""
        self.aside = random.Random(f"{world.seed} {number} aside")
        self.forget()
        self.visit: Visit | None = None
        self.orphans: list[asyncio.Task[Any]] = []
        self.end = ""
        rate = self.random.choice(LINKS)
        spec = LinkSpec(rate_bytes_per_s=rate, delay_s=self.random.choice((0.0, 0.02, 0.3)))
        self.dialer = VirtualDialer(Profile("link", spec, spec, "none"), number)

    def forget(self) -> None:
        """Lose all memory but the name."""
        if getattr(self, "training", None) is not None:
            self.stop_training()
        self.training: tuple[int, asyncio.Task[None]] | None = None
        self.run, self.shard, self.held, self.download, self.digest = "", NOTHING, NOTHING, b"", b""
        self.pending: Update | None = None
        self.anew += self.aside.random() < 0.5

    @property
    def calm(self) -> bool:
        return self.world.calm.is_set()

    def chance(self, probability: float) -> bool:
        """Return True by chance, and never where it is calm."""
        return self.random.random() < probability and not self.calm

    async def waits(self, seconds: float) -> None:
        """Wait, but not in the calm."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.world.calm.wait()

    async def mood(self) -> None:
        """Let some time pass, or end the connection."""
        if self.calm:
            return
        drawn = self.random.random()
        if drawn < 0.05:
            raise CutError(self.random.choice(("reset", "reset", "close", "stall", "orphan", "leave")))
        if drawn < 0.5:
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)
        elif drawn < 0.7:
            await self.waits(self.random.choice((0.001, 0.02, 0.3, 2.0)))
        elif drawn < 0.71:
            await self.waits(self.world.deadline_s * self.random.choice((0.5, 1.2)))

    async def live(self) -> None:
        """Play until the run is over."""
        await self.waits(self.random.choice((0.0, 0.0, 0.1, 5.0, 30.0)))
        while not self.end:
            try:
                connection = await self._connect()
            except (OSError, InvalidHandshake, InvalidMessage, ConnectionClosed, EOFError):
                if self.world.over:
                    self.end = "untold"
                    return
                await asyncio.sleep(1.0)
                continue
            self.visit = visit = Visit(self, connection)
            how = "close"
            try:
                how = await visit.run()
            finally:
                self.visit = None
                await visit.leave(how)
            if self.end:
                return
            if self.chance(0.1):
                self.forget()
                if self.world.renames and self.chance(0.3):
                    self.name += "'"
                self.world.note(f"{self.name} forgets")
            if how == "hurry":
                await asyncio.sleep(0)
            elif self.chance(0.7):
                await self.waits(self.random.choice((0.0, 0.3, 3.0, 15.0)))
            else:
                await asyncio.sleep(self.random.choice((0.0, 0.01, 0.5)))

    async def close(self) -> None:
        """End whatever is left of this phone."""
        if self.training is not None:
            self.stop_training()
        for task in self.orphans:
            task.cancel()
        await asyncio.gather(*self.orphans, return_exceptions=True)
        self.dialer.link.end("reset")

    async def _connect(self) -> ClientConnection:
        return await connect(
            f"ws://{HOST}:{PORT}", sock=await self.dialer.connect(HOST, PORT), compression=None, proxy=None,
            ping_interval=None, close_timeout=1,
        )  # fmt: skip

    # Training

    def train(self, task: Task) -> None:
        """Have the update of a task some time later, whatever becomes of the connection."""
        if self.training is not None:
            if self.training[0] == task.round:
                return
            self.stop_training()
        self.training = task.round, asyncio.create_task(self._train(task.round, self.shard))

    def stop_training(self) -> None:
        assert self.training is not None
        self.training[1].cancel()
        self.training = None

    async def _train(self, round_number: int, shard: int) -> None:
        if self.chance(0.4):
            await self.waits(self.random.choice((0.0, 1.0, 5.0, self.world.deadline_s * 1.1)))
        else:
            await asyncio.sleep(TRAINS_S)
        self.training = None
        self.pending = Update(round_number, self.world.train(round_number, shard, self.anew))
        if self.visit is not None:
            self.visit.go_on()


class Visit:
    """One connection."""

    def __init__(self, phone: LivelyPhone, connection: ClientConnection) -> None:
        self.phone, self.world, self.connection = phone, phone.world, connection
        self.session = Session()
        self.task: Task | None = None
        self.offered = NOTHING
        """The round whose update was announced here."""
        self.there: asyncio.Future[int] | None = None
        self.known: int | None = None
        """Since it asked about the offered update: what it was told then, or has sent here. It is told of no other."""
        self.work: asyncio.Task[None] | None = None
        self.cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.begin: ModelBegin | None = None
        self.ready = False

    async def run(self) -> str:
        """Return how to end the connection."""
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({reading, self.cut}, return_when=asyncio.FIRST_COMPLETED)
            if self.cut.done():
                return self.cut.result()
            return await reading
        finally:
            self.ready = False
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def leave(self, how: str) -> None:
        """End the connection as was drawn: an orphan goes on to send what it has begun."""
        phone, link = self.phone, self.phone.dialer.link
        if self.work is not None and (how == "hurry" or (how == "orphan" and not self.work.done())):
            phone.orphans.append(self.work)
            phone.orphans.append(asyncio.create_task(self._abandon()))
            return
        if self.work is not None:
            self.work.cancel()
            await asyncio.gather(self.work, return_exceptions=True)
        if how == "stall":
            link.end("stall")
        elif how == "leave":
            code = phone.random.choice((Close.DONE, Close.UNTRAINED, Close.UNTRAINED, Close.UNABLE))
            if code == Close.UNTRAINED and phone.training is not None:
                phone.stop_training()
            await self.connection.close(code, "it leaves")
        elif how == "close":
            await self.connection.close()
        else:
            self.connection.transport.abort()

    async def _abandon(self) -> None:
        """Read nothing more, for a while."""
        await self.phone.waits(20.0)
        self.connection.transport.abort()

    async def _read(self) -> str:
        try:
            await self._say_hello()
            while True:
                await self.phone.mood()
                await self._handle(await self.receive())
                if self.phone.end:
                    return "close"
        except CutError as cut:
            return cut.how
        except ConnectionClosed as closed:
            return await self._closed(closed)

    async def _closed(self, closed: ConnectionClosed) -> str:
        phone, code = self.phone, closed.rcvd.code if closed.rcvd else 0
        self.world.note(f"{phone.name} is closed: {code} {closed.rcvd.reason if closed.rcvd else ''}")
        if code == Close.DONE and not phone.end:
            phone.end = "done"
        elif code == Close.PAYLOAD:
            phone.pending = None
        elif code == Close.REPLACED and phone.visit is self:
            self.world.faults.append(f"the newest connection of {phone.name} was closed for a newer one")
        elif code in (Close.FAULT, Close.PROTOCOL) and "no Hello within" not in closed.rcvd.reason:  # type: ignore[union-attr]
            self.world.faults.append(f"{phone.name} was closed with {code} {closed.rcvd.reason if closed.rcvd else ''}")
        if code in (Close.LATER, Close.NO_SHARD, Close.PAUSED, Close.TOO_FAST):
            await asyncio.sleep(2.0)
        return "close"

    async def _say_hello(self) -> None:
        phone = self.phone
        await phone.mood()
        shard = phone.shard if phone.run else NOTHING
        pending = phone.pending.round if phone.pending else NOTHING
        await self.send(
            Hello(
                PROTOCOL_VERSION, phone.name, shard, 0, b"", phone.run, phone.held, pending,
                partial_digest=phone.digest, partial_bytes=len(phone.download),
            )
        )  # fmt: skip
        welcome = await self.receive()
        assert isinstance(welcome, Welcome), welcome
        if (welcome.run, welcome.shard) != (phone.run, phone.shard):
            if phone.training is not None:
                phone.stop_training()
            phone.pending = None
            if welcome.run != phone.run:
                phone.held, phone.download, phone.digest = 0 if welcome.initial else NOTHING, b"", b""
        phone.run, phone.shard = welcome.run, welcome.shard
        self.ready = True
        self.world.note(f"{phone.name} is welcomed to shard {phone.shard}, holds {phone.held}, pending {pending}")
        self.go_on()

    async def _handle(self, message: AnyMessage) -> None:
        phone = self.phone
        self.world.note(f"{phone.name} hears {_short(message)}")
        match message:
            case Task():
                self._take_task(message)
            case WholeModel():
                if self.task is None or self.task.version != message.version:
                    self._take_task(message.task())
                self._take_model(message.begin())
            case ModelBegin():
                self._take_model(message)
            case ModelChunk():
                phone.download += message.data
                self._downloaded()
            case Ack(round_number, offset):
                if phone.pending is not None and phone.pending.round == round_number:
                    assert offset <= len(phone.pending.payload)
                    if self.there is not None and not self.there.done():
                        self.known = offset
                        self.there.set_result(offset)
                    elif self.known is not None and offset > self.known and round_number == self.offered:
                        self.world.faults.append(f"{phone.name} is told of {offset} bytes, and sent {self.known}")
            case Accepted(round_number):
                self.world.heard.add((round_number, phone.shard))
                await self._answered(round_number)
            case Cancel(round_number):
                if (round_number, phone.shard) in self.world.heard:
                    # A phone that has forgotten so may be told so of an attempt: not of an update that counts.
                    self.world.faults.append(f"{phone.name} was called off in round {round_number}, which counts")
                if self.task is not None and self.task.round == round_number:
                    self.task = self.begin = None
                if phone.training is not None and phone.training[0] == round_number:
                    phone.stop_training()
                await self._answered(round_number)
                if self.offered == round_number:
                    self.offered = NOTHING
            case Finish():
                phone.end = "finished"
        self.go_on()

    async def _answered(self, round_number: int) -> None:
        phone = self.phone
        if phone.pending is not None and phone.pending.round == round_number:
            phone.pending = None
            await self._stop_work()
        if self.task is not None and self.task.round == round_number:
            self.task = None

    def _take_task(self, task: Task) -> None:
        self.begin = None
        if self.phone.pending is not None and self.phone.pending.round == task.round:
            return
        self.task = task

    def _take_model(self, begin: ModelBegin) -> None:
        phone = self.phone
        if begin.offset:
            assert begin.digest == phone.digest and begin.offset <= len(phone.download), "the rest of another model"
        assert begin.base in (NOTHING, phone.held), f"a difference to {begin.base}, where {phone.held} is held"
        phone.download = phone.download[: begin.offset] + begin.data
        phone.digest, self.begin = begin.digest, begin
        self._downloaded()

    def _downloaded(self) -> None:
        phone, begin = self.phone, self.begin
        if begin is not None and len(phone.download) == sum(begin.lengths):
            assert digest_of(phone.download) == begin.digest, "another model than was announced"
            phone.held, phone.download, phone.digest, self.begin = begin.version, b"", b"", None

    # Upwards

    def go_on(self) -> None:
        """Begin what comes next."""
        phone = self.phone
        if not self.ready or (self.work is not None and not self.work.done()):
            return
        if phone.pending is not None:
            if phone.pending.round != self.offered:
                self.work = asyncio.create_task(self._upload(phone.pending, resumed=self.task is None))
                self.work.add_done_callback(self._worked)
        elif self.task is not None and self.task.version == phone.held:
            phone.train(self.task)

    def _worked(self, work: "asyncio.Task[None]") -> None:
        error = None if work.cancelled() else work.exception()
        if isinstance(error, CutError):
            if not self.cut.done():
                self.cut.set_result(error.how)
        elif error is not None and not isinstance(error, ConnectionClosed):
            self.world.faults.append(f"{self.phone.name}: {error!r}")
        else:
            self.go_on()

    async def _stop_work(self) -> None:
        work, self.work = self.work, None
        if work is not None and not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _upload(self, update: Update, *, resumed: bool) -> None:
        phone, payload, draw = self.phone, update.payload, self.phone.random
        self.offered, self.known = update.round, None
        size, digest = len(payload), digest_of(payload)
        if phone.chance(0.03):
            # A stale or made-up round: nobody wants it.
            await self.send(UpdateBegin(draw.randrange(1, 9) + 20, size, digest, 1, 0, b""))
        if phone.chance(0.03):
            await self.send(UpdateBegin(update.round, size, bytes(8), 1, 0, payload[:100]))
        if phone.chance(0.02):
            await self.send(WholeUpdate(update.round, payload[:-3], 1))
            return
        if not resumed and draw.random() < 0.4:
            await self.send(WholeUpdate(update.round, payload, 1))
            return
        if resumed or draw.random() < 0.3:
            self.there = asyncio.get_running_loop().create_future()
            await self.send(UpdateBegin(update.round, size, digest, 1, 0, b""))
            offset = await self.there
        else:
            offset = draw.randrange(1, size)
            await self.send(UpdateBegin(update.round, size, digest, 1, 0, payload[:offset]))
        hurried, phone.hurried = phone.hurried, not (phone.hurried or phone.calm) and phone.aside.random() < 0.15
        if phone.hurried:
            # All of it at once, and away to a new connection while the server still reads what this one brings.
            for at in range(offset, size - 5000, 5000):
                await self.send(UpdateChunk(at, payload[at : at + 5000]))
            raise CutError("hurry")
        while offset < size:
            await phone.mood()
            step = draw.choice((size, 4000, 9000))
            if hurried:
                step = 700
            if phone.chance(0.05):
                # Some of it once more.
                offset = draw.randrange(offset + 1)
                await self.send(UpdateBegin(update.round, size, digest, 1, offset, payload[offset : offset + step]))
            else:
                await self.send(UpdateChunk(offset, payload[offset : offset + step]))
            offset = min(size, offset + step)

    async def send(self, message: AnyMessage) -> None:
        self.session.follow(Role.PHONE, message)
        if isinstance(message, UpdateBegin | UpdateChunk) and self.known is not None:
            self.known = max(self.known, message.offset + len(message.data))
        self.world.note(f"{self.phone.name} says {_short(message)}")
        await self.connection.send(pack(message))

    async def receive(self) -> AnyMessage:
        frame = await self.connection.recv()
        assert isinstance(frame, bytes)
        message = unpack(frame)
        self.session.follow(Role.SERVER, message)
        return message


def _short(message: AnyMessage) -> str:
    shown = {
        name: f"{len(value)} B" if isinstance(value, bytes) and name != "digest" else value
        for name in message.__struct_fields__
        if (value := getattr(message, name)) not in ("", [], {}) and name not in ("digest", "tensors")
    }
    return f"{type(message).__name__}({', '.join(f'{key}={value}' for key, value in shown.items())})"
