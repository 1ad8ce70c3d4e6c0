"""One phone: joins, trains off the event loop, uploads, comes back after every lost connection, ends when told to."""

import asyncio
import random
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from featherfed.edge_client.addresses import Addresses
from featherfed.edge_client.backoff import Backoff
from featherfed.edge_client.connection import PhoneConnection, answered, open_connection
from featherfed.edge_client.dialing import Dialer
from featherfed.edge_client.download import Download, SpoiltDownloadError, buildable
from featherfed.edge_client.learner import Learner, fingerprint_of
from featherfed.edge_client.leaving import PhoneLeftError
from featherfed.edge_client.limits import (
    EARNED_A_MESSAGE,
    LEAST_SILENCE_S,
    LONGEST_HEARTBEAT_S,
    MAX_PARAMETERS,
    WELCOME_S,
)
from featherfed.edge_client.pocket import PendingUpdate, Pocket
from featherfed.edge_client.workshop import Workshop
from featherfed.errors import DivergedError, LocalError, ProtocolError, RemoteError
from featherfed.fingerprint import Fingerprint
from featherfed.training_settings import Training
from featherfed.wire.chunking import ChunkSizer
from featherfed.wire.closing import Close, readable, reason
from featherfed.wire.liveness import SILENT_HEARTBEATS, Pulse
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
    pack,
    tensor_entries,
    tensor_rows,
    unpack,
)
from featherfed.wire.session import Role, Session

FIRST_CONTACT_S = 10.0
"""How long to look for a server that was never seen: it may just be starting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneSettings:
    """`shard` is (index, of), or None to be given one. `step_s`: seconds a training step of this device takes.

    `link` and `link_bytes_per_s` are what the phone says of its way up: a label, and bytes a second (0: not known).
    `others` are more addresses where the server may be. `server_flag` and `token_flag` are what errors call them.
    """

    server: str
    others: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    token: str | None = None
    tls: ssl.SSLContext | None = None
    step_s: float = 0.0
    patience_s: float = 600.0
    link: str = ""
    link_bytes_per_s: int = 0
    server_flag: str = "--server"
    token_flag: str = "--token"


class RunPausedError(LocalError):
    """The server has paused the run; `reason` is its own, as it closed the connection with it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"the run pauses: {self.reason}; start this phone again when the run is resumed"


class NoShardHereError(LocalError):
    """The server has no shard for this phone; another address of the run may have one."""


class NoWelcomeError(ProtocolError):
    """The server has not answered Hello in time; it may be busy."""


class Phone:
    """Runs one phone until the server ends it."""

    def __init__(
        self,
        settings: PhoneSettings,
        *,
        name: str,
        pocket: Pocket,
        dialer: Dialer,
        make_learner: Callable[[Welcome], Learner],
        say: Callable[[str], None],
        known: Fingerprint | None = None,
    ) -> None:
        """`known` is the model of this phone's own problem, of which the server says nothing if it is its own.

        `make_learner` is given a Welcome with all of the model's tensors.
        """
        self._settings = settings
        self._known = known
        self._addresses = Addresses((settings.server, *settings.others))
        self._name = name
        self._pocket = pocket
        self._dialer = dialer
        self._say = say
        self._workshop = Workshop(pocket, make_learner, step_s=settings.step_s, say=say)
        self._progress = Progress()
        self._waits = False
        """Whether the server has a shard for this phone only later."""

    @property
    def model_digest(self) -> bytes:
        """The digest of the model that this phone knows, or nothing."""
        return self._known.digest if self._known is not None else b""

    def whole(self, welcome: Welcome) -> Welcome:
        """Return a Welcome with the model's tensors in it; raises `ProtocolError` where they are not known."""
        if welcome.tensors:
            told = Fingerprint.of_rows(tensor_rows(welcome.tensors))
            if told.digest != welcome.model_digest:
                raise ProtocolError("the model's tensors do not have the digest that was announced")
            if not 0 < told.layout.size <= MAX_PARAMETERS:
                raise ProtocolError(f"a model with {told.layout.size} parameters; the limit is {MAX_PARAMETERS}")
            self._known = told
        if self._known is None or self._known.digest != welcome.model_digest:
            raise ProtocolError("a Welcome without the model's tensors, and this phone knows another model")
        return replace(welcome, tensors=tensor_entries(self._known.rows()))

    async def run(self) -> str:
        """Return the server's reason for the end; raises `LocalError` where there is no way on."""
        try:
            return await self._visits()
        finally:
            await self._workshop.stop()

    async def _visits(self) -> str:
        loop = asyncio.get_running_loop()
        backoff = Backoff(random.Random(self._name))
        # A phone that knows a run has seen its server, perhaps in an earlier life.
        seen, lost_at_s = bool(self._pocket.run), loop.time()
        while True:
            stay = no_shard = False
            try:
                connection = await self._connect()
            except InvalidStatus as error:
                status = error.response.status_code
                if status in {401, 403}:
                    raise LocalError(
                        f"{self._addresses.current} refused this phone ({status}): is"
                        f" {self._settings.token_flag} right?"
                    ) from error
                trouble = answered(error)
            except (OSError, WebSocketException) as error:
                # Any of the library's: a connection may also be lost between its request and the server's answer.
                trouble = readable(str(error)) or type(error).__name__
            else:
                visit = Visit(connection, self)
                try:
                    return await visit.run()
                except ConnectionClosed as error:
                    if visit.welcomed:
                        seen = stay = True
                        backoff.reset()
                    if fault := connection.fault(error):
                        raise LocalError(f"the server broke the protocol: {readable(str(fault))}") from error
                    try:
                        trouble, lost_at_s = self._closed(error), loop.time()
                        seen |= self._waits
                    except NoShardHereError as nothing:
                        trouble, no_shard = str(nothing), True
                except PhoneLeftError as leave:
                    self._say(str(leave))
                    await asyncio.sleep(leave.away_s)
                    seen, lost_at_s = True, loop.time()
                    continue
                except NoWelcomeError as error:
                    trouble = str(error)
                except SpoiltDownloadError as error:
                    self._say(f"{error}; it is asked for anew")
                    trouble, seen, stay, lost_at_s = str(error), True, True, loop.time()
                except DivergedError as error:
                    # This round goes on without this phone; a later one may ask it again.
                    self._say(str(error))
                    seen, lost_at_s = True, loop.time()
                    backoff.reset()
                    await asyncio.sleep(backoff.next_s())
                    continue
                except RemoteError as error:
                    raise LocalError(f"the server broke the protocol: {readable(str(error))}") from error
            around = stay or self._addresses.failed(no_shard=no_shard)
            if self._addresses.none_has_a_shard:
                raise LocalError(trouble)
            patience_s = self._settings.patience_s if seen else min(FIRST_CONTACT_S, self._settings.patience_s)
            away_s = loop.time() - lost_at_s
            if away_s >= patience_s:
                raise LocalError(
                    f"no server at {self._addresses} for {away_s:.0f} s ({trouble});"
                    f" start it with fl-server serve, or name another with {self._settings.server_flag}"
                )
            if around:
                await asyncio.sleep(min(backoff.next_s(), patience_s - away_s))

    async def _connect(self) -> PhoneConnection:
        settings = self._settings
        return await open_connection(self._addresses.current, self._dialer, tls=settings.tls, token=settings.token)

    def _closed(self, error: ConnectionClosed) -> str:
        code = error.rcvd.code if error.rcvd else None
        sentence = readable(error.rcvd.reason) if error.rcvd else "the connection was lost"
        known = next((close for close in Close if close == code), None)
        if known is Close.NO_SHARD:
            raise NoShardHereError(f"the server closed the connection ({code}): {sentence}")
        if known is not None and known.final:
            raise LocalError(f"the server closed the connection ({code}): {sentence}")
        if known is Close.PAUSED:
            raise RunPausedError(sentence)
        if known is Close.LATER:
            self._wait_for_a_shard(sentence)
        if known is Close.PAYLOAD:
            # The same bytes would be refused again.
            self._pocket.drop_update()
        return sentence or f"closed with code {code}"

    def _wait_for_a_shard(self, sentence: str) -> None:
        if not self._waits:
            self._say(f"{sentence}; waiting (with --name or --state-dir a phone gets its own shard back at once)")
        self._waits = True


class Progress:
    """How far the update under way is durable, over all connections, and what that says about the link."""

    def __init__(self) -> None:
        self.sizer = ChunkSizer()
        self._round_number, self._durable = NOTHING, 0

    def durable(self, round_number: int, offset: int) -> None:
        """Note that the server has the first `offset` bytes of a round's update."""
        if round_number != self._round_number:
            self._round_number, self._durable = round_number, 0
        self.sizer.carried(max(0, offset - self._durable))
        self._durable = offset


class Visit:
    """One connection of a phone, from Hello to its end."""

    def __init__(self, connection: PhoneConnection, phone: Phone) -> None:
        self._connection = connection
        self._phone = phone
        self._workshop = phone._workshop
        self._pocket = phone._pocket
        self._say = phone._say
        self._session = Session()
        self._task: Task | None = None
        self._download: Download | None = None
        self._work: asyncio.Task[None] | None = None
        self._durable: asyncio.Future[int] | None = None
        self._learner: asyncio.Future[Learner] | None = None
        self._offered = NOTHING
        """The round whose finished update this connection has begun to send."""
        self._pulse = Pulse(sum(phone._dialer.keepalive()), asyncio.get_running_loop().time())
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.welcomed = False

    async def run(self) -> str:
        """Return the reason of the server's Finish; raises `ConnectionClosed` when the connection is lost.

        A `RemoteError` is told to the server as the code and reason of the close before it is raised.
        """
        reading, self._watching = asyncio.create_task(self._read()), asyncio.create_task(self._watch())
        try:
            waiting: set[asyncio.Future[Any]] = {reading, self._failed}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                await self._failed
            return await reading
        except RemoteError as error:
            await self._leave(reading, error.code, str(error))
            raise
        except PhoneLeftError:
            raise
        except LocalError as error:
            # Nobody need wait for this phone: in this round, or at all.
            code = Close.UNTRAINED if isinstance(error, DivergedError) else Close.UNABLE
            await self._leave(reading, code, str(error))
            raise
        finally:
            if self._learner is not None:
                self._learner.remove_done_callback(self._prepared)
            for task in (reading, self._watching):
                task.cancel()
            await asyncio.gather(reading, self._watching, return_exceptions=True)
            await self._stop_sending()
            if self._pocket.pending is not None and self._pocket.pending.round_number == self._offered:
                self._phone._progress.sizer.broke()
            await self._connection.close()

    async def _leave(self, reading: "asyncio.Task[str]", code: int, sentence: str) -> None:
        """Tell the server why; what it still sends is nothing to handle."""
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await self._connection.close(code, reason(sentence))

    async def _watch(self) -> None:
        """Break the connection off when no byte of it moves for longer than the link can explain."""
        now_s = asyncio.get_running_loop().time
        while self._connection.beats(self._pulse, now_s()):
            await asyncio.sleep(self._pulse.check_s)
        self._connection.transport.abort()

    def _leave_pings_to_the_server(self, heartbeat_s: float) -> None:
        """Ping less often than the server does, whose pings show that both ends live.

        A phone that is not asked sends nothing else: at 20 s the pings of ninety idle phones cost more than the updates
        of ten that train.
        """
        interval_s, _ = self._phone._dialer.keepalive()
        believed_s = min(heartbeat_s, LONGEST_HEARTBEAT_S)
        # The server pings every heartbeat; on a slow link its ping waits behind what is under way.
        explained_s = believed_s + 2 * self._phone._dialer.answer_s
        self._pulse.silence_s = max(SILENT_HEARTBEATS * believed_s, explained_s, LEAST_SILENCE_S)
        # It may be asleep for longer than that.
        self._watching.cancel()
        self._watching = asyncio.create_task(self._watch())
        # Who means to ask more rarely than a dead connection is borne is asked.
        asks_s = 2 * heartbeat_s if heartbeat_s == believed_s else believed_s
        self._connection.ping_interval = max(interval_s, asks_s)
        self._connection.start_keepalive()

    async def _read(self) -> str:
        pocket = self._pocket
        # Who asks for none would like the one that it had: its update was trained on that.
        shard, shards = self._phone._settings.shard or (pocket.shard, 0)
        await self._send(
            Hello(
                PROTOCOL_VERSION,
                self._phone._name,
                shard,
                shards,
                pocket.run,
                pocket.held_version,
                pocket.download_digest,
                len(pocket.download),
                pocket.pending.round_number if pocket.pending else NOTHING,
                self._phone._settings.link,
                self._phone._settings.link_bytes_per_s,
                self._phone.model_digest,
            )
        )
        try:
            async with asyncio.timeout(WELCOME_S):
                welcome = await self._receive()
        except TimeoutError as error:
            raise NoWelcomeError(f"no Welcome within {WELCOME_S:g} seconds") from error
        if not isinstance(welcome, Welcome):
            raise ProtocolError(f"{type(welcome).__name__} in place of Welcome")
        if welcome.shard >= welcome.shards:
            raise ProtocolError(f"shard {welcome.shard} of {welcome.shards}; shards are counted from 0")
        self.welcomed = True
        self._phone._addresses.found()
        pocket.enter(welcome.run, welcome.shard)
        welcome = self._phone.whole(welcome)
        self._welcome, self._layout = welcome, fingerprint_of(welcome).layout
        self._leave_pings_to_the_server(welcome.heartbeat_s)
        self._say(f"run {readable(welcome.run)}: {self._phone._name} plays shard {welcome.shard} of {welcome.shards}")
        self._learner = await self._workshop.prepare(welcome)
        self._learner.add_done_callback(self._prepared)
        self._go_on()
        while True:
            message = await self._receive()
            if isinstance(message, Finish):
                return readable(message.reason)
            await self._handle(message)

    def _prepared(self, learner: asyncio.Future[Learner]) -> None:
        """Leave at once where this phone cannot train: with its first task, a round would wait for it."""
        if not learner.cancelled() and (error := learner.exception()) and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # seen, also where this visit has ended meanwhile

    async def _handle(self, message: AnyMessage) -> None:
        match message:
            case Task():
                await self._take_task(message)
            case ModelBegin():
                self._download = Download(message, self._pocket, self._layout)
                await self._downloaded()
            case ModelChunk():
                if self._download is not None:
                    self._download.extend(message.offset, message.data)
                    await self._downloaded()
            case Ack(round_number, offset):
                self._acknowledged(round_number, offset)
            case Accepted(round_number):
                await self._accepted(round_number)
            case Cancel(round_number):
                await self._cancel(round_number)

    def _acknowledged(self, round_number: int, offset: int) -> None:
        pending = self._pocket.pending
        if pending is None or pending.round_number != round_number:
            return
        if offset > len(pending.payload):
            raise ProtocolError(f"{offset} bytes acknowledged of an update of {len(pending.payload)} bytes")
        self._phone._progress.durable(round_number, offset)
        if self._durable is not None and not self._durable.done():
            self._durable.set_result(offset)

    async def _accepted(self, round_number: int) -> None:
        pending = self._pocket.pending
        if pending is not None and pending.round_number == round_number:
            self._phone._progress.durable(round_number, len(pending.payload))
            await self._stop_sending()
            self._pocket.accepted(round_number)
            self._say(f"round {round_number}: accepted")
        if self._task is not None and self._task.round == round_number:
            self._task = None
        self._go_on()

    async def _take_task(self, task: Task) -> None:
        buildable(task.uplink, "uplink")
        Training.from_wire(task.training)
        pending = self._pocket.pending
        if pending is not None and pending.round_number == task.round:
            return
        if pending is None:
            await self._stop_sending()
        self._task = task
        self._go_on()

    def _go_on(self) -> None:
        """Start what comes next: the upload of what is finished, or else the training of the task.

        A task waits until the server has answered for the update before it. It may have been counted by a server that
        was killed before it could say so, and only the answer tells whether its residual is to be kept.
        """
        if self._work is not None and not self._work.done():
            return
        pending, task = self._pocket.pending, self._task
        if pending is not None:
            if pending.round_number != self._offered:
                self._start(self._upload(pending, resumed=True))
        elif task is not None and task.version == self._pocket.held_version:
            self._start(self._train(task))

    async def _downloaded(self) -> None:
        loop, download = asyncio.get_running_loop(), self._download
        if download is None or not download.complete:
            return
        self._download = None
        weights = await loop.run_in_executor(None, download.weights, self._welcome.seed)
        self._pocket.hold(download.begin.version, weights)
        self._go_on()

    async def _cancel(self, round_number: int) -> None:
        known = False
        if self._task is not None and self._task.round == round_number:
            self._task, self._download, known = None, None, True
        if self._workshop.round_number == round_number:
            await self._workshop.stop()
            known = True
        pending = self._pocket.pending
        if pending is not None and pending.round_number == round_number:
            await self._stop_sending()
            self._pocket.drop_update()
            self._offered, known = NOTHING, True
        if known:
            self._say(f"round {round_number}: cancelled by the server")
        self._go_on()

    async def _train(self, task: Task) -> None:
        update = self._pocket.take_back(task.round) or await self._workshop.train(task)
        if update is not None:
            await self._upload(update, resumed=False)

    async def _upload(self, update: PendingUpdate, *, resumed: bool) -> None:
        payload, most = update.payload, min(self._phone._dialer.chunk_bytes, self._welcome.chunk_bytes)
        chunk_bytes = self._phone._progress.sizer.chunk_bytes(most)
        offset = 0 if resumed else chunk_bytes
        self._offered = update.round_number
        self._durable = durable = asyncio.get_running_loop().create_future()
        await self._send(
            UpdateBegin(update.round_number, len(payload), update.digest, update.examples, 0, payload[:offset])
        )
        if resumed:
            # Only what is not durable there travels again. Accepted or Cancel may come instead of the Ack.
            offset = await durable
        while offset < len(payload):
            await self._send(UpdateChunk(offset, payload[offset : offset + chunk_bytes]))
            offset += chunk_bytes

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = asyncio.create_task(work)
        self._work.add_done_callback(self._worked)

    def _worked(self, work: asyncio.Task[None]) -> None:
        error = None if work.cancelled() else work.exception()
        # A lost connection is noticed by the reader; anything else ends the visit.
        if error is not None and not isinstance(error, ConnectionClosed) and not self._failed.done():
            self._failed.set_exception(error)

    async def _stop_sending(self) -> None:
        work, self._work = self._work, None
        if work is not None and not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _send(self, message: AnyMessage) -> None:
        frame = pack(message)
        self._session.follow(Role.PHONE, message)
        self._connection.earn(EARNED_A_MESSAGE)
        await self._connection.send(frame)

    async def _receive(self) -> AnyMessage:
        frame = await self._connection.recv()
        if isinstance(frame, str):
            raise ProtocolError(f"text frame of {len(frame)} characters; frames are binary")
        message = unpack(frame)
        self._session.follow(Role.SERVER, message)
        return message
