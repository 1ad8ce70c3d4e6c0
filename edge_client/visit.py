"""One connection of a phone, from Hello to its end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from websockets.exceptions import ConnectionClosed

from featherfed.edge_client.connection import PhoneConnection
from featherfed.edge_client.delivery import Delivery
from featherfed.edge_client.download import Download, buildable_downlink
from featherfed.edge_client.learner import Learner, fingerprint_of
from featherfed.edge_client.leaving import PhoneLeftError
from featherfed.edge_client.limits import EARNED_A_MESSAGE, LEAST_SILENCE_S, LONGEST_HEARTBEAT_S, WELCOME_S
from featherfed.edge_client.phone_context import PhoneContext
from featherfed.edge_client.phone_state import PendingUpdate
from featherfed.edge_client.promises import check_promises
from featherfed.edge_client.round_settings import RunSettings, spelled_out
from featherfed.edge_client.secrets import Secrets
from featherfed.errors import (
    CodecError,
    DivergedError,
    LocalError,
    ProtocolError,
    RemoteError,
    SecrecyError,
    SpentError,
)
from featherfed.initial_weights import F32, InitialWeights, digest_of, drawn
from featherfed.wire.closing import Close, readable, reason
from featherfed.wire.liveness import SILENT_HEARTBEATS, Pulse
from featherfed.wire.messages import (
    NOTHING,
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    AnyMessage,
    Cancel,
    Circle,
    Finish,
    Hello,
    Key,
    ModelBegin,
    ModelChunk,
    Shares,
    Survivors,
    Task,
    Welcome,
    WholeModel,
    pack,
    unpack,
)
from featherfed.wire.session import Role, Session

NOT_ASKED = "no later round asks this phone"
"""What a Finish without a reason says."""


class NoWelcomeError(ProtocolError):
    """The server has not answered Hello in time; it may be busy."""


class OtherWeightsError(CodecError):
    """What this phone draws is not what the server has drawn: it comes back, and gets the model whole."""


class Visit:
    """One connection of a phone, from Hello to its end."""

    def __init__(self, connection: PhoneConnection, phone: PhoneContext) -> None:
        self._connection = connection
        self._phone = phone
        self._runner = phone.runner
        self._phone_state = phone.phone_state
        self._say = phone.say
        self._session = Session()
        self._task: Task | None = None
        self._download: Download | None = None
        self._work: asyncio.Task[None] | None = None
        self._learner: asyncio.Future[Learner] | None = None
        self._secrets = Secrets(phone.phone_state, least_circle=phone.settings.least_circle)
        self._circle: tuple[Circle, tuple[bytes, ...]] | None = None
        """With whom the task's update is summed, and their keys."""
        self._delivery = Delivery(phone, connection, self._send)
        self._pulse = Pulse(sum(phone.dialer.keepalive()), asyncio.get_running_loop().time())
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
            if (
                self._phone_state.pending is not None
                and self._phone_state.pending.round_number == self._delivery.offered
            ):
                self._phone.progress.sizer.broke()
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
        interval_s, _ = self._phone.dialer.keepalive()
        believed_s = min(heartbeat_s, LONGEST_HEARTBEAT_S)
        # The server pings every heartbeat; on a slow link its ping waits behind what is under way.
        explained_s = believed_s + 2 * self._phone.dialer.answer_s
        self._pulse.silence_s = max(SILENT_HEARTBEATS * believed_s, explained_s, LEAST_SILENCE_S)
        # It may be asleep for longer than that.
        self._watching.cancel()
        self._watching = asyncio.create_task(self._watch())
        # Who means to ask more rarely than a dead connection is borne is asked.
        asks_s = 2 * heartbeat_s if heartbeat_s == believed_s else believed_s
        self._connection.ping_interval = max(interval_s, asks_s)
        self._connection.start_keepalive()

    async def _read(self) -> str:
        phone_state = self._phone_state
        # Who asks for none would like the one that it had: its update was trained on that.
        shard, shards = self._phone.settings.shard or (phone_state.shard, 0)
        await self._send(
            Hello(
                PROTOCOL_VERSION,
                self._phone.name,
                shard,
                shards,
                self._phone.model.digest,
                phone_state.run,
                phone_state.held_version,
                phone_state.pending.round_number if phone_state.pending else NOTHING,
                self._phone.settings.link,
                self._phone.settings.link_bytes_per_s,
                phone_state.download_digest,
                len(phone_state.download),
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
        check_promises(welcome, self._phone.settings)
        self.welcomed = True
        self._connection.forget_handshake()
        self._phone.addresses.found()
        knew = self._phone.model.digest
        welcome = self._phone.model.whole(welcome)
        self._welcome, self._layout = welcome, fingerprint_of(welcome).layout
        self._settings, self._downlink = RunSettings(welcome), buildable_downlink(welcome.downlink)
        self._settings.in_round(Task(1, 0))
        # A phone that knew another model cannot take part.
        drawing = welcome.run != phone_state.run and welcome.initial and knew in (b"", self._phone.model.digest)
        if (welcome.run, welcome.shard) != (phone_state.run, phone_state.shard):
            # First: what ends meanwhile is an update of the shard that is left, and goes with it.
            await self._runner.stop()
        # Before it belongs to the run: of one that holds nothing of its run the server believes that it cannot draw.
        weights = await self._draw(welcome) if drawing else None
        phone_state.enter(welcome.run, welcome.shard)
        if weights is not None:
            if digest_of(weights) != welcome.initial_digest:
                raise OtherWeightsError("the model that this phone draws is not the one that the server has drawn")
            phone_state.hold(0, weights, weights if self._downlink.keeps_initial else None)
        self._leave_pings_to_the_server(welcome.heartbeat_s)
        self._say(f"run {readable(welcome.run)}: {self._phone.name} plays shard {welcome.shard} of {welcome.shards}")
        if phone_state.secrets and not welcome.masked:
            raise SecrecyError(f"run {readable(welcome.run)} masked updates, and says now that it does not")
        if welcome.noise:
            self._say(
                f"each sum has noise of {welcome.noise:g} times what this phone moves it by, though"
                f" {welcome.colluding:.0%} of a circle collude"
            )
        if welcome.masked:
            self._secrets.hold_to(welcome)
            await self._send(Key(self._secrets.public()))
        self._learner = await self._runner.prepare(welcome)
        self._learner.add_done_callback(self._prepared)
        self._go_on()
        while True:
            message = await self._receive()
            if isinstance(message, Finish):
                self._secrets.end()
                return readable(message.reason) or NOT_ASKED
            await self._handle(message)

    async def _draw(self, welcome: Welcome) -> F32:
        """Return the initial weights as this phone draws them, (parameters,) float32."""
        initial = InitialWeights.of_wire(welcome.initial, welcome.initial_digest)

        def draw() -> F32:
            return drawn(initial.draws, self._layout, welcome.seed)

        return await asyncio.get_running_loop().run_in_executor(None, self._phone_state.drawn, draw)

    def _prepared(self, learner: asyncio.Future[Learner]) -> None:
        """Leave at once where this phone cannot train: with its first task, a round would wait for it."""
        if not learner.cancelled() and (error := learner.exception()) and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # seen, also where this visit has ended meanwhile

    async def _handle(self, message: AnyMessage) -> None:
        match message:
            case Task():
                await self._take_task(message)
            case Circle():
                await self._take_circle(message)
            case Survivors():
                await self._take_list(message)
            case WholeModel():
                if self._task is None or self._task.version != message.version:
                    await self._take_task(message.task())
                await self._take_model(message.begin())
            case ModelBegin():
                await self._take_model(message)
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
        pending = self._phone_state.pending
        if pending is None or pending.round_number != round_number:
            return
        self._delivery.acknowledged(pending, offset)

    async def _accepted(self, round_number: int) -> None:
        pending = self._phone_state.pending
        if pending is not None and pending.round_number == round_number:
            self._phone.progress.durable(round_number, len(pending.payload))
            await self._stop_sending()
            self._phone_state.accepted(round_number)
            self._secrets.forget(round_number)
            self._say(f"round {round_number}: accepted")
        if self._task is not None and self._task.round == round_number:
            self._task = None
        self._go_on()

    async def _take_model(self, begin: ModelBegin) -> None:
        built = self._downlink if begin.spec in ("", self._welcome.downlink) else None
        self._download = Download(begin, self._phone_state, self._layout, built)
        await self._downloaded()

    async def _take_task(self, task: Task) -> None:
        task = spelled_out(self._welcome, task)
        uplink = self._settings.in_round(task).uplink
        if self._welcome.masked and not uplink.summed:
            raise SecrecyError(f"round {task.round} is to send {uplink}, which cannot be masked, in a masked run")
        pending = self._phone_state.pending
        if pending is not None and pending.round_number == task.round:
            # Perhaps its training, begun on an earlier connection, has ended since this one's Welcome.
            self._go_on()
            return
        if pending is None or not pending.payload:
            await self._stop_sending()
        self._task = task
        self._go_on()

    def _drop_what_no_circle_sums(self) -> None:
        """Forget an update of which nothing has left this phone, since its round went on before its circle came.

        Its training may end as late as behind the next Task, while the model of that one is on its way.
        """
        pending, task = self._phone_state.pending, self._task
        if pending is not None and not pending.payload and task is not None and task.round != pending.round_number:
            self._phone_state.drop_update()
            self._secrets.forget(pending.round_number)
            self._say(f"round {pending.round_number}: over before this phone knew with whom its update is summed")

    async def _take_circle(self, circle: Circle) -> None:
        self._circle = circle, self._secrets.keys_of(circle, self._welcome.shard)
        pending = self._phone_state.pending
        if pending is not None and self._due(pending):
            # What was masked for an attempt that is over.
            await self._stop_sending()
            self._delivery.offered = NOTHING
        self._go_on()

    async def _take_list(self, survivors: Survivors) -> None:
        answer, loop, state = self._secrets.answer, asyncio.get_running_loop(), self._phone_state
        while True:
            pending, before = state.pending, state.secrets
            if pending is None or (pending.round_number, pending.attempt) != (survivors.round, survivors.attempt):
                # It has been cancelled, or the attempt is over.
                return
            told, secrets = await loop.run_in_executor(None, answer, pending, survivors, self._welcome.shard)
            if state.pending is pending and state.secrets == before:
                # Otherwise it is in another attempt by now, and what it may tell is to be asked again.
                break
        state.put_secrets(secrets)
        await self._send(Shares(survivors.round, survivors.attempt, survivors.version, told))

    def _due(self, update: PendingUpdate) -> bool:
        """Return whether an update is to be made ready for the circle that is known, and is not."""
        if update.coordinates is None or self._circle is None:
            return False
        circle, _ = self._circle
        return circle.round == update.round_number and (not update.payload or circle.attempt > update.attempt)

    async def _enclosed(self, update: PendingUpdate) -> PendingUpdate | None:
        """Return an update as its circle sums it, kept before any of it leaves; None where it must not leave at all.

        The thread changes nothing: where this is cancelled meanwhile, nothing of that attempt has been.
        """
        loop, state, enclose = asyncio.get_running_loop(), self._phone_state, self._secrets.enclose
        while True:
            assert self._circle is not None, "it is due"
            (circle, keys), before = self._circle, state.secrets
            try:
                made, secrets = await loop.run_in_executor(
                    None, enclose, update, circle, keys, self._welcome, self._layout
                )
            except SpentError as error:
                await self._take_no_part(circle, str(error))
                return None
            if state.secrets == before:
                # Otherwise it has told something meanwhile, and whether it may take part is to be asked again.
                break
        update = made
        if secrets != before:
            state.put_secrets(secrets)
        state.put_update(update)
        whom = f"masked among {len(circle.members)} phones" if circle.threshold else "to be summed"
        self._say(f"round {update.round_number}: update of {len(update.payload)} bytes, {whom}")
        return update

    async def _take_no_part(self, circle: Circle, why: str) -> None:
        """Say that this round has no update of this phone any more, so that nobody waits for one."""
        self._phone_state.drop_update()
        self._secrets.forget(circle.round)
        if self._task is not None and self._task.round == circle.round:
            self._task = None
        self._say(why)
        await self._send(Shares(circle.round, circle.attempt, 0, b""))
        # What has come meanwhile waits until this work is done, which it is when its caller returns.
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Start what comes next: the upload of what is finished, or else the training of the task.

        A task waits until the server has answered for the update before it. It may have been counted by a server that
        was killed before it could say so, and only the answer tells whether its residual is to be kept.
        """
        if self._work is not None and not self._work.done():
            return
        self._drop_what_no_circle_sums()
        pending, task = self._phone_state.pending, self._task
        if pending is not None:
            if self._due(pending):
                self._start(self._enclose(pending))
            elif pending.payload and pending.round_number != self._delivery.offered:
                self._start(self._deliver(pending, resumed=True))
        elif task is not None and task.version == self._phone_state.held_version:
            self._start(self._train(task))

    async def _downloaded(self) -> None:
        loop, download = asyncio.get_running_loop(), self._download
        if download is None or not download.complete:
            return
        self._download = None
        download.keep(await loop.run_in_executor(None, download.held, self._welcome.seed))
        self._go_on()

    async def _cancel(self, round_number: int) -> None:
        known = False
        if self._task is not None and self._task.round == round_number:
            self._task, self._download, known = None, None, True
        if self._runner.round_number == round_number:
            await self._runner.stop()
            known = True
        pending = self._phone_state.pending
        if pending is not None and pending.round_number == round_number:
            await self._stop_sending()
            self._phone_state.drop_update()
            self._secrets.forget(round_number)
            self._delivery.offered, known = NOTHING, True
        if known:
            self._say(f"round {round_number}: cancelled by the server")
        self._go_on()

    async def _train(self, task: Task) -> None:
        update = self._phone_state.take_back(task.round) or await self._runner.train(task)
        if update is not None and self._due(update):
            update = await self._enclosed(update)
        if update is not None and update.payload:
            await self._deliver(update)

    async def _enclose(self, update: PendingUpdate) -> None:
        if (enclosed := await self._enclosed(update)) is not None:
            await self._deliver(enclosed)

    async def _deliver(self, update: PendingUpdate, *, resumed: bool = False) -> None:
        await self._delivery.deliver(update, self._welcome, resumed=resumed)

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
        await self._connection.send_frame(frame)

    async def _receive(self) -> AnyMessage:
        frame = await self._connection.recv()
        if isinstance(frame, str):
            raise ProtocolError(f"text frame of {len(frame)} characters; frames are binary")
        message = unpack(frame)
        self._session.follow(Role.SERVER, message)
        return message
