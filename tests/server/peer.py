"""A phone that does what a test tells it to, right or wrong: raw messages over a real connection."""

import contextlib
from collections.abc import AsyncIterator
from hashlib import sha256

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.learner import fingerprint_of
from featherfed.learning.noise import noise_update
from featherfed.randomness import RoundKey
from featherfed.wire.counting import CountsBytes
from featherfed.wire.messages import (
    NOTHING,
    PROTOCOL_VERSION,
    AnyMessage,
    Hello,
    Message,
    ModelBegin,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    pack,
    unpack,
)


def hello(name: str, *, shard: int = NOTHING, shards: int = 0, protocol: int = PROTOCOL_VERSION) -> Hello:
    return Hello(protocol, name, shard, shards)


def digest(payload: bytes) -> bytes:
    return sha256(payload).digest()[:8]


class CountedClient(CountsBytes, ClientConnection):
    """Counts its socket's bytes, as the server's connections do: both ends must agree."""

    open_state = OPEN
    masks = True

    def frame_of(self, message: bytes) -> Frame:
        return Frame(Opcode.BINARY, message)


class Peer:
    """One connection. `send` takes messages or raw frames; `receive` returns the next message."""

    def __init__(self, connection: CountedClient) -> None:
        self.connection = connection
        self.held_version = NOTHING
        self._hello: Hello | None = None
        self._welcome: Welcome | None = None

    @property
    def welcome(self) -> Welcome | None:
        return self._welcome

    @welcome.setter
    def welcome(self, answer: Welcome) -> None:
        """Hold what the server believes now that this phone holds."""
        self._welcome = answer
        assert self._hello is not None
        new = self._hello.run != answer.run
        self.held_version = (0 if answer.initial else NOTHING) if new else self._hello.held_version

    async def send(self, message: AnyMessage | bytes | str) -> None:
        if isinstance(message, Hello):
            self._hello = message
        await self.connection.send(message if isinstance(message, bytes | str) else pack(message))

    async def receive(self) -> AnyMessage:
        frame = await self.connection.recv()
        assert isinstance(frame, bytes)
        return unpack(frame)

    async def receive_until(self, kind: type[Message]) -> AnyMessage:
        """Return the next message of a kind; what comes before it is passed over."""
        while not isinstance(message := await self.receive(), kind):
            pass
        return message

    async def join(self, name: str, **hello_fields: int) -> Welcome:
        await self.send(hello(name, **hello_fields))
        welcome = await self.receive()
        assert isinstance(welcome, Welcome)
        self.welcome = welcome
        return welcome

    async def task(self) -> Task:
        """Return the next task, once its model is there; who is new to a run holds version 0 of it."""
        while not isinstance(task := await self.receive(), Task | WholeModel):
            pass
        if isinstance(task, WholeModel):
            self.held_version = task.version
            return task.task()
        if task.version == self.held_version:
            return task
        self.held_version = task.version
        while not isinstance(begin := await self.receive(), ModelBegin | WholeModel):
            pass
        begin = begin.begin() if isinstance(begin, WholeModel) else begin
        left = sum(begin.lengths) - len(begin.data)
        while left:
            chunk = await self.receive()
            left -= len(chunk.data)  # type: ignore[union-attr]
        return task

    def update(self, task: Task) -> bytes:
        """Return a valid payload for a task: seeded noise."""
        assert self.welcome is not None
        key = RoundKey(self.welcome.seed, task.round, self.welcome.shard)
        layout, pipeline = (
            fingerprint_of(self.welcome).layout,
            Pipeline.parse(str(task.changes.get("uplink", self.welcome.uplink))),
        )
        return pipeline.encode(noise_update(pipeline.space(layout, key).size, key), layout, key).payload

    async def upload(self, round_number: int, payload: bytes, *, examples: int = 1, upto: int | None = None) -> None:
        """Send an update, or only its first `upto` bytes."""
        chunk, end = 16384, len(payload) if upto is None else upto
        first = payload[: min(chunk, end)]
        await self.send(UpdateBegin(round_number, len(payload), digest(payload), examples, 0, first))
        for offset in range(len(first), end, chunk):
            await self.send(UpdateChunk(offset, payload[offset : min(offset + chunk, end)]))

    async def closed(self) -> tuple[int, str]:
        """Return the code and reason of the server's close frame."""
        try:
            while True:
                await self.connection.recv()
        except ConnectionClosed as error:
            assert error.rcvd is not None, "the connection was lost, not closed"
            return error.rcvd.code, error.rcvd.reason


@contextlib.asynccontextmanager
async def peer(address: str) -> AsyncIterator[Peer]:
    # A server that a test has ended does not answer a close; nobody need wait ten seconds for that.
    async with connect(
        address, compression=None, proxy=None, create_connection=CountedClient, close_timeout=1
    ) as connection:
        assert isinstance(connection, CountedClient)
        yield Peer(connection)
