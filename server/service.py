"""A run on its sockets: lets phones in and hands on what they say, from the first one's Hello to the last one's leave.

The machine decides and the rest of `rounds/` does; here they are put together, and here is what a connection brings.
"""

import asyncio
import contextlib
import sys

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from featherfed.errors import LocalError, ProtocolError, RemoteError, UnexpectedError
from featherfed.server.config import RunConfig
from featherfed.server.door.entrance import Entrance
from featherfed.server.door.guarded_connection import GuardedConnection, say_little
from featherfed.server.door.limits import FRAME_BYTES, OPEN_S
from featherfed.server.model.run_model import RunModel
from featherfed.server.phones.admission import check_gateway
from featherfed.server.phones.connections import Connections
from featherfed.server.phones.fault_desk import FaultDesk
from featherfed.server.phones.fleet import Fleet
from featherfed.server.phones.phone_connection import STRANGER, PhoneConnection
from featherfed.server.rounds.action_runner import ActionRunner
from featherfed.server.rounds.arrivals import Arrivals
from featherfed.server.rounds.assignments import Assignments
from featherfed.server.rounds.circle_book import CircleBook
from featherfed.server.rounds.circle_hands import CircleHands
from featherfed.server.rounds.closing import RoundCloser
from featherfed.server.rounds.current_round import CurrentRound, Hands
from featherfed.server.rounds.downlink import Downlink
from featherfed.server.rounds.evaluations import Evaluations
from featherfed.server.rounds.events import Asked, Fail, GaveUp, Joined, Lost, Resume, Stop
from featherfed.server.rounds.farewell import GOODBYE_S, SAY_S, Farewell
from featherfed.server.rounds.folding import Folding
from featherfed.server.rounds.machines import State
from featherfed.server.rounds.pacing import Pacing
from featherfed.server.rounds.receiving import Receiver
from featherfed.server.rounds.resume_point import ResumePoint, put_told
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.rounds.short_way import ShortWay
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.rounds.unmasking import Unmasking
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.run_clock import RunClock
from featherfed.server.run_tasks import RunTasks
from featherfed.server.storage.ledger import Ledger
from featherfed.server.storage.payloads import Payloads
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import Statement, Store, put_phone
from featherfed.server.watchers.watcher import Visitor, Watcher, Watchers
from featherfed.server.welcoming import Welcomes
from featherfed.wire.closing import Close, readable
from featherfed.wire.limits import READ_AHEAD_FRAMES
from featherfed.wire.liveness import SILENT_HEARTBEATS, Pulse
from featherfed.wire.messages import Hello, Key, Shares, UpdateBegin, UpdateChunk, WholeUpdate

HELLO_S = 10.0
"""A connection that has said no Hello after so long is closed."""
KEY_S = 60.0
"""Who sends no key after its Welcome, in a run that sums under masks: on a slow link Welcome takes its time."""
LEDGER_S = 1.0
"""How old the bytes in the ledger's file may be: what a killed server forgets of them."""
WRITE_LIMIT_BYTES = 16 * 1024
SWITCH_S = 0.0005
"""How long a thread that decodes keeps the event loop waiting."""


class Service:
    """One run of the server, from its first phone to its last round."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        model: RunModel,
        store: Store,
        start: ResumePoint,
        watcher: Watcher,
        *,
        payloads: Payloads | None = None,
    ) -> None:
        """`payloads` holds the bytes of updates under way; the database, unless told."""
        self._config = config
        self._model = model
        self._run = start.run
        self._reached = start.reached
        self._untold = start.untold
        self._told = start.told
        self._watcher = watcher
        self._clock = clock = RunClock(start.clock_s)
        self._tasks = tasks = RunTasks()
        store.erases = config.secure
        self._storage = storage = RunStorage(folder, store, clock, tasks, payloads)
        self._desk = desk = FaultDesk(storage, watcher)
        self._connections = connections = Connections()
        rules = start.state.rules
        grace_s = 2 * config.heartbeat
        self._fleet = fleet = Fleet(
            rules.total or rules.phones,
            store.phones(),
            grace_s=grace_s,
            here=range(rules.first, rules.first + rules.phones),
        )
        self._welcomes = Welcomes(config, start.run, model, shards=fleet.shards)
        self._book = book = CircleBook(config, start.run, model, store)
        self._downlink = downlink = Downlink(config, model.versions, book, watcher)
        self._farewell = Farewell(fleet, connections, downlink, watcher, grace_s=grace_s)
        # Each is given those that it calls, and none of them calls one that is made after it.
        self._uploads = uploads = UploadRegister(model, storage)
        self._pacing = pacing = Pacing(rules, fleet, clock, tasks)
        watcher = Watchers([watcher, pacing])
        assignments = Assignments(config, fleet, downlink, book, watcher, clock, tasks)
        self._evaluations = evaluations = Evaluations(config, model, storage, watcher, tasks)
        self._closer = closer = RoundCloser(config, model, storage, uploads, connections, evaluations, tasks)
        runner = ActionRunner(model, storage, uploads, assignments, closer, watcher, tasks)
        hands: Hands = runner
        self._unmasking = unmasking = Unmasking(config, book, storage, uploads, fleet, desk, tasks)
        if isinstance(start.state, SummedState):
            hands = CircleHands(runner, unmasking, book, storage.commits, watcher)
        self._round = current = CurrentRound(start.state, hands, clock, started_s=start.round_start_s)
        kind = Arrivals if isinstance(start.state, SummedState) else Folding
        self._intake = intake = kind(current, model, storage, uploads, assignments, watcher)
        self._receiver = receiver = Receiver(current, model, storage, uploads, intake, watcher, pacing)
        self._short_way = None
        if isinstance(intake, Folding):
            self._short_way = ShortWay(current, model, uploads, intake, receiver, watcher, pacing)

    async def run(
        self, entrance: Entrance | None = None, *, host: str | None = None, port: int | None = None
    ) -> str | None:
        """Serve until the run is over; return None when its rounds are done, or why it pauses.

        Phones come in by the entrance, or to host and port where there is none to guard: on an event loop without real
        sockets. Raises `LocalError` when the disk fails, or this program in what no single phone has asked of it.
        """
        loop = asyncio.get_running_loop()
        self._clock.start()
        # The loop waits for Python's lock whenever another thread decodes: up to 5 ms each time by default.
        sys.setswitchinterval(SWITCH_S)
        heartbeat_s = self._config.heartbeat
        if self.state.round_number:
            # Before the first phone comes back: what it sends again must be known. A gateway's root may ask for a later
            # round at once, and its sum is not to be closed before it is whole.
            async with self._round.lock:
                await loop.run_in_executor(None, self._uploads.restore, self._round.number, self._round.is_open)
                if isinstance(self.state, SummedState) and self._round.is_open:
                    await loop.run_in_executor(None, self._unmasking.restore, self.state)
        where = entrance.serve_arguments(self._turned_away) if entrance else {"create_connection": GuardedConnection}
        async with contextlib.AsyncExitStack() as doors:
            if entrance is not None:
                doors.push_async_callback(entrance.emptied)
            server = await doors.enter_async_context(
                serve(
                    self._serve_phone,
                    host,
                    port,
                    compression=None,
                    max_size=FRAME_BYTES,
                    max_queue=READ_AHEAD_FRAMES,
                    write_limit=WRITE_LIMIT_BYTES,
                    ping_interval=heartbeat_s,
                    # A silent connection is found by its own watch: see featherfed/wire/liveness.py.
                    ping_timeout=None,
                    open_timeout=OPEN_S,
                    close_timeout=GOODBYE_S,
                    server_header=None,
                    process_response=say_little,
                    **where,
                )
            )
            self._watcher.listening(_address(server, tls=entrance is not None and entrance.tls is not None), self._run)
            self._fleet.start()
            if entrance is not None:
                self._tasks.spawn(entrance.watch())
            if self._untold is not None:
                self._closer.take_up(self._untold, self._round)
            self._round.post(Resume(self._reached))
            self._tasks.spawn(self._keep_ledger())
            self._tasks.spawn(self._end_silent())
            self._tasks.spawn(self._tell_who_is_lost())
            try:
                pause = await self._tasks.ended
                await self._evaluated()
                self._watcher.ended(pause)
                if pause is None:
                    rounds = self.state.round_number
                    await self._farewell.end(rounds, stays=rounds != self._told)
                    await self._storage.commits.write(put_told(rounds))
                else:
                    await self._farewell.pause(pause)
            finally:
                if entrance is not None:
                    await entrance.close("the run is over")
                self._round.stop()
                self._fleet.stop()
                await self._tasks.cancel()
                await self._intake.end()
        # The last bytes of every connection are known now.
        await self._storage.commits.write()
        return pause

    async def _evaluated(self) -> None:
        """Wait for an evaluation that is under way, and say so where that takes long."""
        telling = asyncio.ensure_future(self._evaluations.told())
        if not (await asyncio.wait({telling}, timeout=SAY_S))[0]:
            self._watcher.note("the last version is being evaluated; the server ends when that is done")
        await telling

    def stop(self) -> None:
        """Pause the run: phones are told, the state is kept. One whose rounds are done ends without waiting."""
        self._farewell.hurry()
        self._round.post(Stop())

    async def hurried(self) -> None:
        """Return once it was told to stop."""
        await self._farewell.hurried()

    def ask(self, round_number: int, life: int = 0) -> None:
        """Begin the round that a gateway's root asks for, or close an earlier one with what it has.

        `life` says how many times this gateway has lost its memory.
        """
        self._tasks.spawn(self._ask(Asked(round_number, life)))

    async def _ask(self, asked: Asked) -> None:
        gathering = self.state.phase is Phase.GATHERING
        await self._round.post_alone(asked)
        if gathering:
            self._fleet.expect(self.state.present)

    @property
    def state(self) -> State:
        """Where the machine stands."""
        return self._round.state

    @property
    def fleet(self) -> Fleet:
        """Who is connected."""
        return self._fleet

    @property
    def ledger(self) -> Ledger:
        """Where the bytes of all connections are counted."""
        return self._storage.ledger

    def count(self) -> None:
        """Bring the ledger up to what the sockets have carried, frames that are not whole yet included."""
        self._connections.count()

    def clock_s(self) -> float:
        """Return the seconds that the run has been served, pauses left out."""
        return self._clock.now_s()

    async def _keep_ledger(self) -> None:
        while True:
            # Between rounds there are pings to count, and little else.
            await asyncio.sleep(LEDGER_S if self._round.is_open else self._config.heartbeat)
            self.count()
            if self.ledger.changed:
                await self._storage.commits.write()

    async def _end_silent(self) -> None:
        """Break off connections on which nothing moves: one task for all of them, since most phones are idle."""
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(SILENT_HEARTBEATS * self._config.heartbeat / Pulse.CHECKS)
            self._connections.abort_silent(now_s())

    # Connections

    def _pulse(self) -> Pulse:
        return Pulse(SILENT_HEARTBEATS * self._config.heartbeat, asyncio.get_running_loop().time())

    async def _serve_phone(self, websocket: ServerConnection) -> None:
        phone = PhoneConnection(websocket, self.ledger, self._round, self._pulse())
        self._connections.add(phone)
        unable = False
        try:
            unable = await self._converse(phone)
        except (LocalError, OSError) as error:
            # Ours, a disk or a database: what happens on the connection is no OSError (featherfed/wire/edge.py).
            self.end(error)
            # Not the 1000 of a handler that returns, which tells a phone that the run is over.
            await phone.close(Close.GOING_AWAY, "the server stops for a fault of its own; it can be resumed")
        finally:
            phone.count()
            self._connections.remove(phone)
            self._receiver.forget(phone)
            self._book.forget(phone)
            self._downlink.stop(phone)
            if self._fleet.left(phone, for_good=unable):
                left = self._watcher.phone_rests if phone.sent_away else self._watcher.phone_left
                left(phone.shard, phone.name, len(self._fleet.connections))

    async def _converse(self, phone: PhoneConnection) -> bool:
        """Hand on what a phone says until its connection ends; return whether it left since it cannot take part.

        Raises what is our own fault, and ends the run.
        """
        unable = False
        try:
            await self._welcome(phone)
            if self._farewell.said:
                await self._farewell.tell(phone)
                return unable
            phone.takes_updates = self._short_way
            while True:
                message = await phone.receive()
                if isinstance(message, WholeUpdate):
                    message = message.begin(self._model.sum.max_examples)
                if isinstance(message, UpdateBegin) and await self._round.answers():
                    await self._receiver.begin(phone, message)
                elif isinstance(message, UpdateChunk):
                    await self._receiver.chunk(phone, message)
                elif isinstance(message, Key):
                    raise ProtocolError("a Key that nobody has asked for")
                elif isinstance(message, Shares) and message.version:
                    await self._unmasking.take(phone, message, self._round)
                elif isinstance(message, Shares):
                    await self._without(phone, message)
        except ConnectionClosed as error:
            if fault := phone.websocket.fault(error):
                await self._refuse(phone, fault)
            elif error.rcvd is not None and error.rcvd.code in (Close.UNABLE, Close.UNTRAINED) and phone.name:
                unable = error.rcvd.code == Close.UNABLE
                await self._note_given_up(phone, Close(error.rcvd.code), error.rcvd.reason)
        except RemoteError as error:
            await self._refuse(phone, error)
        except (LocalError, OSError):
            raise
        except Exception as error:
            # Whatever a phone's message makes of this program, it ends that connection: the others play on.
            await self._refuse(phone, RemoteError(f"the server failed on a message of it: {UnexpectedError(error)}"))
        return unable

    async def _without(self, phone: PhoneConnection, message: Shares) -> None:
        """Wait for no update of a phone that takes no part in this attempt."""
        state = self.state
        if message.data:
            raise ProtocolError(f"an answer of {len(message.data)} bytes to no list")
        if state.wants(message.round, phone.shard) and state.takes(message.attempt):
            await self._give_up(phone, Fail(phone.shard), self._round.number)

    async def _welcome(self, phone: PhoneConnection) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await phone.receive()
        except TimeoutError as error:
            raise ProtocolError(f"no Hello within {HELLO_S:g} seconds") from error
        assert isinstance(hello, Hello), "the session lets nothing else come first"
        if phone.websocket.token is not None:
            phone.websocket.token.check_name(hello.name)
        if self._config.gateways:
            check_gateway(hello)
        self._welcomes.check(hello, max(1, self.state.round_number))
        newcomer = hello.name not in self._fleet.names.values()
        self._fleet.admit(phone, hello, run=self._run)
        phone.held_version = self._welcomes.held_version(hello)
        phone.websocket.admit()
        if self._config.gateways and not newcomer and hello.run != self._run:
            await self._storage.commits.write(self._book.moved(phone.shard))
        if newcomer:
            await self._storage.commits.write(put_phone(phone.shard, phone.name))
        # Of the round at hand, which perhaps asks this phone: its Task need not say what is other in it then. A gateway
        # compares with what it was started with.
        phone.told_of = 1 if self._config.gateways else max(1, self.state.round_number)
        await phone.send(self._welcomes.answer(hello, phone.shard, phone.told_of))
        phone.handshake_done()
        if self._config.masks:
            # Before it takes the place of an older connection: another phone of this name has another key.
            await self._take_key(phone)
        # Only now: a round that opened meanwhile must not send its task before the Welcome.
        outdated = self._fleet.connect(phone)
        if outdated is not None:
            self._tasks.spawn(outdated.close(Close.REPLACED, f"phone {phone.name!r} has a newer connection"))
        if outdated is phone:
            return
        visitor = Visitor(phone.shard, phone.name, hello.link, hello.link_bytes_per_s)
        self._watcher.phone_came(visitor, len(self._fleet.connections), self.state.rules.phones)
        self._round.post(Joined(phone.shard, hello.link, hello.link_bytes_per_s))
        self._pacing.release(phone, self.state)

    async def _take_key(self, phone: PhoneConnection) -> None:
        """Note the key of a phone, durable before others are told of it; without one it is in no circle."""
        try:
            async with asyncio.timeout(KEY_S):
                message = await phone.receive()
        except TimeoutError as error:
            raise ProtocolError(f"no Key within {KEY_S:g} seconds, in a run that sums under masks") from error
        if not isinstance(message, Key):
            raise ProtocolError(f"{type(message).__name__} in place of Key, in a run that sums under masks")
        if self._fleet.is_overtaken(phone):
            # The key may be another one by now.
            return
        if new := self._book.learn(phone, message.public):
            await self._storage.commits.write(*new)

    async def _refuse(self, phone: PhoneConnection, error: RemoteError) -> None:
        name, number = phone.name or "stranger", self._round.number
        booked = self._booked(phone.shard, name, error.code, str(error))
        closing = phone.close(error.code, str(error))
        if self._fleet.connections.get(phone.shard) is phone:
            # Beside the close, which may take its time: the phone is not to be asked on its next connection meanwhile.
            await asyncio.gather(closing, self._give_up(phone, Fail(phone.shard), number))
        else:
            await closing
        if booked:
            await self._storage.commits.write(*booked)

    async def _note_given_up(self, phone: PhoneConnection, code: Close, sentence: str) -> None:
        """Book why a phone cannot play, or has no update of this round, and wait for it no longer."""
        number, connected = self._round.number, self._fleet.connections.get(phone.shard) is phone
        what = "it cannot play" if code is Close.UNABLE else "it has no update of this round"
        if booked := self._booked(phone.shard, phone.name, code, f"{what}: {readable(sentence)}"):
            await self._storage.commits.write(*booked)
        if connected:
            await self._give_up(phone, GaveUp(phone.shard), number)

    async def _give_up(self, phone: PhoneConnection, event: Fail | GaveUp, number: int) -> None:
        """Wait no longer for what a phone was to send in a round, if that is still the one that is played.

        It may be back by then: a round that is being closed takes its time, and events wait for that.
        """
        async with self._round.lock:
            if self._round.number == number:
                back = self._fleet.connections.get(phone.shard, phone) is not phone
                self._receiver.give_up(Fail(phone.shard) if back else event)

    def _booked(self, shard: int, name: str, code: int, sentence: str) -> list[Statement]:
        return self._desk.book(shard, name, code, sentence, round_number=self._round.number)

    def _turned_away(self, code: int, sentence: str) -> None:
        if booked := self._booked(STRANGER, "stranger", code, sentence):
            self._storage.commits.queue(*booked)

    async def _tell_who_is_lost(self) -> None:
        while True:
            shard = await self._fleet.lost.get()
            async with self._round.lock:
                # It may be back by then, and would be asked no more for as long as it stays.
                if shard not in self._fleet.connections:
                    self._round.post(Lost(shard))

    def end(self, outcome: BaseException | str | None) -> None:
        """End the run: None, its rounds are done; a reason, it pauses; an error, phones may look for it again.

        The first outcome counts. One that comes later ends the wait for phones that do not know of it.
        """
        if self._tasks.ended.done():
            self._farewell.hurry()
        self._tasks.end(outcome)


def _address(server: Server, *, tls: bool) -> str:
    host, port = next(iter(server.sockets)).getsockname()[:2]
    return f"{'wss' if tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"
