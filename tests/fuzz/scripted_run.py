"""A server that says what it may in any order, to a phone whose trainings end when it likes; all in virtual time.

It is honest: what it says fits the session and what docs/PROTOCOL.md promises. What it checks of the phone: that no
two updates of a round differ, that each was trained on what was accepted before it, and that one training runs at a
time. `settle` says the newest task, if this connection has not heard it, and waits for its update.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from featherfed.edge_client.dialing import DirectDialer
from featherfed.edge_client.learner import F32, Trained
from featherfed.edge_client.phone import Phone
from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import DivergedError
from featherfed.secure.keys import PhoneKey
from featherfed.wire.closing import Close
from featherfed.wire.messages import (
    NOTHING,
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
    TensorEntry,
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
from tests import layouts

WEIGHTS = 600
SUMMED = "exact(0) | flat | rotate_shared | grid(4)"
PIECE = 900
SETTLES_S = 100.0
"""Virtual seconds in which an update comes that nothing stands in the way of: a phone looks for its server each 30.

It is less than the silence that a phone bears: one that stands still is not to be helped by a new connection.
"""
HEARTBEAT_S = 60.0
TRAINS_S, STOPS_S, JOB_S = 2.0, 0.4, 0.003
LIFE = 1 << 16
OTHERS = [PhoneKey.new().public for _ in range(4)]


class Line:
    """One connection of the phone's, and what it has heard there."""

    def __init__(self, socket: ServerConnection, hello: Hello) -> None:
        self.socket, self.hello = socket, hello
        self.session = Session()
        self.welcomed = self.keyed = False
        self.held = hello.held_version
        self.partial = hello.partial_digest, hello.partial_bytes
        self.told: tuple[int, int] | None = None
        """Round and attempt of the last Task, unless it was cancelled."""
        self.left: list[ModelChunk] = []
        self.knows: set[int] = {0}
        self.answers: list[AnyMessage] = []
        self.sending: UpdateBegin | None = None
        self.got = 0


class Training:
    """One that ends when it may."""

    def __init__(self, learner: "HeldLearner", *given: Any) -> None:
        self.may, self.error = False, False
        self.weights, self.task, self.residual, self.stopped = given
        self.result = asyncio.ensure_future(self._train(learner))

    async def _train(self, learner: "HeldLearner") -> Trained | None:
        while not self.may:
            await asyncio.sleep(0.01)
            if self.stopped():
                # A step that has begun is ended first.
                await asyncio.sleep(STOPS_S)
                return None
        if self.error:
            raise DivergedError(round_number=self.task.round, steps=1, lr=0.1, loss=float("inf"))
        return learner.trained(self.weights, self.task, self.residual)


class HeldLearner:
    """Says in its update what it was trained on."""

    examples = 1

    def __init__(self, welcome: Welcome) -> None:
        self.welcome = welcome

    def train(self, *given: Any) -> Trained | None:
        raise AssertionError("trainings are the script's")

    def trained(self, weights: F32, task: Task, residual: F32 | None) -> Trained:
        assert weights[0] == task.version, f"round {task.round} trained on version {weights[0]:g}"
        before = [] if residual is None else [int(each) for each in residual]
        if task.changes["uplink"] != "float32":
            made = np.full(WEIGHTS, task.round, np.float32)
            return Trained(b"", None, 1, 1, 0.0, made, SUMMED)
        said = f"{task.round} after {before} by shard {self.welcome.shard} ".encode()
        after = np.array([*before, task.round], np.float32)
        return Trained(said + bytes(2000), after, 1, 1, 0.0)


class ScriptedRun:
    """`kind` is plain, circles or masked; with a `folder` the phone has a state directory."""

    def __init__(self, kind: str, folder: Path | None, seed: int) -> None:
        self.kind, self.folder = kind, folder
        self.random = random.Random(seed)
        self.round, self.attempt, self.life, self.shard = 1, 0, 0, 0
        self.wanted = self.prompt = self.free = False
        self.line: Line | None = None
        self.came = asyncio.Event()
        self.durable: dict[tuple[int, int], bytes] = {}
        self.digests: dict[tuple[int, int], bytes] = {}
        self.arrived: tuple[int, int] | None = None
        self.accepted: dict[int, bytes] = {}
        self.counted: list[int] = []
        """Rounds of which an update was ever accepted: what a residual may come from."""
        self.excused: set[int] = set()
        self.trainings: list[Training] = []
        self.lines: list[str] = []
        self.made: list[str] = []
        self.faults: list[str] = []
        self.welcome = layouts.welcome(
            "run", shard=0, shards=5, chunk_bytes=1024, uplink=SUMMED if kind != "plain" else "float32",
            masked=kind == "masked", clip=0.0 if kind == "plain" else 8.0, max_examples=1,
            heartbeat_s=HEARTBEAT_S,
        )  # fmt: skip
        self.welcome = replace(self.welcome, tensors=[TensorEntry("w", [WEIGHTS], b"")])

    @property
    def told_attempt(self) -> int:
        return 0 if self.kind == "plain" else self.life * LIFE + self.attempt

    # The phone

    def start(self) -> None:
        self.state = PhoneState(self.folder)
        phone = Phone(
            PhoneSettings(server="ws://server:80", least_circle=3), name=self.state.name_phone("phone"),
            phone_state=self.state, dialer=DirectDialer(), make_learner=HeldLearner, say=self.lines.append,
            trains=self._trains,
        )  # fmt: skip
        self.playing = asyncio.create_task(phone.run())

    def _trains(self, *given: Any) -> "asyncio.Future[Trained | None]":
        if any(not each.result.done() for each in self.trainings):
            self.faults.append("two trainings at a time")
        self.trainings.append(Training(*given))
        self.trainings[-1].may = self.free
        return self.trainings[-1].result

    async def kill(self) -> None:
        for each in self.trainings:
            each.result.cancel()
        self.playing.cancel()
        await asyncio.gather(self.playing, *(each.result for each in self.trainings), return_exceptions=True)
        self.trainings.clear()
        if self.folder is None:
            # What it knew is gone, and its next update may be another one.
            self.counted.clear()
            self.digests.clear()
            self.durable.clear()
        self.start()

    # The server

    async def serve(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            hello = unpack(await socket.recv(decode=False))
            assert isinstance(hello, Hello)
            line = self.line = Line(socket, hello)
            line.session.follow(Role.PHONE, hello)
            self.came.set()
            if hello.run != self.welcome.run:
                line.held = NOTHING
            while True:
                message = unpack(await socket.recv(decode=False))
                line.session.follow(Role.PHONE, message)
                self.hear(line, message)
                if self.prompt:
                    await self.answer(line)
        if socket.close_code == Close.UNTRAINED:
            if self.wanted:
                self.excused.add(self.round)
                self.wanted = False
        elif socket.close_code not in (None, 1000, 1006, 1005):
            self.faults.append(f"the phone left with {socket.close_code} {socket.close_reason}")

    def hear(self, line: Line, message: AnyMessage) -> None:
        if isinstance(message, Key):
            line.keyed = True
        elif isinstance(message, Shares):
            if not message.version and (message.round, message.attempt) == (self.round, self.told_attempt):
                self.excused.add(message.round)
                self.wanted = False
        elif isinstance(message, UpdateBegin | WholeUpdate):
            begin = message.begin(1) if isinstance(message, WholeUpdate) else message
            line.sending, line.got = begin, 0
            self.take(line, begin, begin.data, begin.offset)
        elif isinstance(message, UpdateChunk) and line.sending is not None:
            self.take(line, line.sending, message.data, message.offset)

    def take(self, line: Line, begin: UpdateBegin, data: bytes, offset: int) -> None:
        key, last = (begin.round, begin.attempt), offset + len(data) == begin.size
        if begin.round in self.accepted:
            if self.accepted[begin.round] != begin.digest:
                self.faults.append(f"round {begin.round} has another update")
            line.answers.append(Accepted(begin.round))
            line.sending = None
            return
        if self.digests.setdefault(key, begin.digest) != begin.digest:
            self.faults.append(f"round {begin.round} has two updates")
        if begin.round != self.round or not (self.wanted or self.arrived == key):
            if last or not data:
                line.answers.append(Cancel(begin.round))
            return
        if begin.attempt != self.told_attempt:
            return
        have = self.durable.get(key, b"")
        if offset <= len(have):
            have += data[len(have) - offset :]
        self.durable[key] = have
        if len(have) < begin.size:
            line.answers.append(Ack(begin.round, len(have)))
            return
        assert digest_of(have) == begin.digest
        line.sending, self.wanted = None, False
        if self.kind == "plain":
            self.check(have)
            self.count(begin.digest)
            line.answers.append(Accepted(begin.round))
        else:
            self.arrived, self.arrived_digest = key, begin.digest
            line.answers.append(Ack(begin.round, begin.size))

    def check(self, payload: bytes) -> None:
        said = payload.rstrip(b"\0").decode()
        if not said.endswith(f"by shard {self.shard} "):
            self.faults.append(f"an update of another shard: {said}")
        before = [int(each) for each in said.split("[")[1].split("]")[0].split(",") if each.strip()]
        if not set(before) <= set(self.counted) or before != sorted(set(before)):
            self.faults.append(f"trained {said}, where {self.counted} have counted")

    def count(self, digest: bytes) -> None:
        self.accepted[self.round] = digest
        self.counted = sorted({*self.counted, self.round})

    async def answer(self, line: Line) -> None:
        while line.answers:
            await self.send(line, line.answers.pop(0))

    async def send(self, line: Line, *messages: AnyMessage) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                line.session.follow(Role.SERVER, message)
                await line.socket.send(pack(message))

    # Moves

    def possible(self) -> list[str]:
        """Return what can be done now, what is to come often more than once."""
        line, ready = self.line, self.ready
        training = any(not each.result.done() for each in self.trainings)
        open_ = self.round not in self.accepted and not self.arrived
        moves = ["next late", "forget"] + ["kill"] * (self.folder is not None or self.kind != "masked")
        moves += ["train", "train", "train", "diverge"] * training
        moves += ["again"] * (self.kind != "plain" and self.round not in self.accepted)
        moves += ["open"] * 3 * (self.arrived is not None)
        if line is None:
            return [*moves, *["back"] * 5]
        moves += ["cut", "cut", "next"]
        if ready is None:
            return [*moves, *["welcome"] * 6] if not line.welcomed else [*moves, "back"]
        told = line.told == (self.round, self.told_attempt)
        moves += ["answer"] * 4 * bool(line.answers) + ["more", "more", "rest", "rest"] * bool(line.left)
        moves += ["cancel"] * self.wanted + ["ask"] * open_ + ["ask"] * 5 * (open_ and not told)
        moves += ["list"] * (self.kind == "masked" and self.arrived is not None)
        moves += ["move"] * (self.kind == "plain" and open_)
        return moves

    @property
    def ready(self) -> Line | None:
        """The connection, if it may hear of a task."""
        line = self.line
        if line is None or not line.welcomed or (self.welcome.masked and not line.keyed) or line.socket.state != 1:
            return None
        return line

    async def move(self, name: str) -> None:
        """Make a move; one that cannot be made now does nothing."""
        self.made.append(name)
        line, ready = self.line, self.ready
        match name:
            case "back":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(40.0):
                        await self.came.wait()
            case "welcome" if line is not None and not line.welcomed:
                line.welcomed = True
                if line.hello.run != "run":
                    line.held = NOTHING
                await self.send(line, replace(self.welcome, shard=self.shard))
            case "ask" if ready is not None:
                await self.ask(ready)
            case "more" if ready is not None and ready.left:
                await self.more(ready)
            case "rest" if ready is not None:
                while ready.left:
                    await self.more(ready)
            case "train" | "diverge":
                for training in self.trainings:
                    if not training.result.done():
                        training.may, training.error = True, name == "diverge"
            case "answer" if ready is not None:
                await self.answer(ready)
            case "cut" if line is not None:
                line.socket.transport.abort()
                self.line = None
                self.came.clear()
            case "cancel":
                await self.call_off()
            case "next" | "next late":
                # The Cancel may be on its way when the connection breaks, or was never sent: what has arrived whole on
                # a connection that stands is always answered before another Task.
                if name == "next" or self.arrived:
                    await self.call_off()
                self.round, self.attempt, self.wanted, self.arrived = self.round + 1, 0, False, None
            case "again" if self.kind != "plain" and self.round not in self.accepted:
                self.attempt, self.arrived = self.attempt + 1, None
                if ready is not None and self.wanted:
                    await self.ask(ready)
            case "list" if self.kind == "masked" and ready is not None and self.arrived:
                await self.send(ready, Survivors(self.round, self.told_attempt, 1, True, b"\x1f", b"\x18"))
            case "open" if self.arrived:
                await self.open()
            case "forget":
                self.life, self.attempt, self.arrived = self.life + 1, 0, None
                self.accepted.clear()
                self.durable.clear()
                await self.move("cut")
            case "kill" if self.folder is not None or self.kind != "masked":
                await self.kill()
            case "move" if self.kind == "plain" and self.round not in self.accepted:
                # Its shard was given to another, who came while it was away.
                self.shard = 1 - self.shard
                self.wanted = False
                self.round += 1
                self.digests.clear()
                self.durable.clear()
                self.counted.clear()
                await self.move("cut")

    async def ask(self, line: Line) -> None:
        """Give the task of the round, as far as its update does not count."""
        if self.round in self.accepted or self.round in self.excused or self.arrived:
            return
        self.wanted = True
        # The rest of an older model is never sent behind a Task.
        line.left.clear()
        uplink = self.welcome.uplink
        changes: dict[str, Any] = {"lr": 0.5} if self.round % 2 else {}
        messages: list[AnyMessage] = [Task(self.round, self.round - 1, changes)]
        if self.kind != "plain":
            messages.append(self.circle(line))
        version = self.round - 1
        assert uplink
        if line.held != version:
            whole = np.full(WEIGHTS, version, "<f4").tobytes()
            digest, had = line.partial
            offset = had if digest == digest_of(whole) else 0
            if self.random.random() < 0.3 and not offset:
                messages.append(WholeModel(version, whole, NOTHING))
                line.held, line.partial = version, (b"", 0)
                if self.kind == "plain" and not changes:
                    del messages[0]
            else:
                first = whole[offset : offset + PIECE]
                messages.append(ModelBegin(version, NOTHING, "", [len(whole)], digest_of(whole), offset, first))
                line.left = [
                    ModelChunk(at, whole[at : at + PIECE]) for at in range(offset + len(first), len(whole), PIECE)
                ]
                line.partial = digest_of(whole), offset + len(first)
                if not line.left:
                    line.held, line.partial = version, (b"", 0)
        line.told = self.round, self.told_attempt
        await self.send(line, *messages)

    async def more(self, line: Line) -> None:
        chunk = line.left.pop(0)
        line.partial = line.partial[0], chunk.offset + len(chunk.data)
        if not line.left and line.told is not None:
            line.held, line.partial = line.told[0] - 1, (b"", 0)
        await self.send(line, chunk)

    def circle(self, line: Line) -> Circle:
        if self.kind == "circles":
            return Circle(self.round, self.told_attempt, 0, 0, 1, 0, 1, bytes([100]))
        new = [each for each in range(1, 5) if each not in line.knows]
        line.knows.update(new)
        keys = b"".join(OTHERS[each - 1] for each in new)
        return Circle(self.round, self.told_attempt, 0, 0, 1, 3, 4, bytes([100]), [0, 1, 2, 3, 4], keys)

    async def call_off(self) -> None:
        """Cancel the round at the phone; it may be asked again in another attempt."""
        line = self.ready
        if line is None or self.round in self.accepted:
            return
        self.wanted, self.arrived = False, None
        self.attempt += self.kind != "plain"
        self.durable.clear()
        line.told = None
        line.left.clear()
        await self.send(line, Cancel(self.round))

    async def open(self) -> None:
        """Count what has arrived: its circle is summed."""
        assert self.arrived is not None
        self.count(self.arrived_digest)
        self.arrived = None
        if self.ready is not None:
            await self.send(self.ready, Accepted(self.round))

    def story(self) -> str:
        return f"{' '.join(self.made[:40])}; the phone: {self.lines[-4:]}"

    # The end

    async def settle(self) -> None:
        """Say the newest task where it was not said, let trainings end, and wait until its update counts."""
        self.prompt = True
        if self.free:
            # A later round: as a server that is not disturbed goes on.
            await self.move("next")
            self.excused.discard(self.round)
        self.free = True
        await self.move("train")
        async with asyncio.timeout(SETTLES_S):
            while self.round not in self.accepted and not self.playing.done():
                if self.line is None:
                    await self.came.wait()
                line = self.line
                assert line is not None
                if line.socket.state != 1:
                    await asyncio.sleep(0.1)
                    continue
                await self.move("welcome")
                await self.answer(line) if self.ready else None
                if self.round in self.excused:
                    # It has said why it cannot: the round goes on.
                    await self.move("next")
                if self.ready is not None and line.told != (self.round, self.told_attempt):
                    await self.ask(self.ready)
                await self.move("rest")
                await self.move("open")
                await asyncio.sleep(0.1)

    async def play(self, moves: Sequence[tuple[int | str, int]]) -> None:
        """Play the moves, named or drawn, with pauses between them; raises `AssertionError` for what must not be."""
        async with serve_websocket(
            self.serve, "server", 80, compression=None, ping_interval=None, create_connection=ServerConnection
        ):
            self.start()
            try:
                for number, pause in moves:
                    if self.playing.done():
                        break
                    possible = self.possible()
                    await self.move(number if isinstance(number, str) else possible[number % len(possible)])
                    await paused(pause)
                for _ in range(2):
                    try:
                        await self.settle()
                    except TimeoutError:
                        raise AssertionError(f"round {self.round} has no update: {self.story()}") from None
                    assert not self.playing.done(), f"the phone has ended: {await self.playing}"
                await self.send(self.line, Finish("over")) if self.line else None
                assert await asyncio.wait_for(self.playing, SETTLES_S) == "over"
            finally:
                self.playing.cancel()
                for each in self.trainings:
                    each.result.cancel()
                await asyncio.gather(self.playing, *(each.result for each in self.trainings), return_exceptions=True)
        assert not self.faults, (self.faults, self.story())


async def paused(pause: int) -> None:
    """Let some turns of the loop pass, or some time."""
    if pause < 6:
        for _ in range(pause):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep((0.004, 0.02, 0.3, 3.0)[pause - 6])


def job_seconds(job: Callable[..., Any], result: Any) -> float:
    """Jobs in threads take a moment, in which other things happen."""
    return JOB_S
