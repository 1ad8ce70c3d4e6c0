"""Whatever happens on a phone's connection, at whatever step, is a lost connection: the phone comes back."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.edge_client import backoff, connection
from featherfed.edge_client.learner import Learner, NoiseLearner, Trained
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.swarm import _Worker
from featherfed.errors import LocalError
from featherfed.wire.messages import (
    NOTHING,
    Circle,
    Finish,
    Hello,
    ModelBegin,
    Task,
    UpdateBegin,
    Welcome,
    WholeUpdate,
    pack,
    unpack,
)
from tests import layouts
from tests.cutting import LINGER_NOT
from tests.edge_client.test_hostile_rounds import GOOD, WELCOME
from tests.server.peer import digest

WAIT_S = 30.0
Trick = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back at once."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)


async def welcome(connection: ServerConnection, *, shard: int = 0) -> None:
    await connection.recv()
    await connection.send(pack(layouts.welcome("r", shard=shard, shards=3, seed=7, chunk_bytes=65536)))


async def finish(connection: ServerConnection) -> None:
    await welcome(connection)
    await connection.send(pack(Finish("over")))
    await connection.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def tricky(first: Trick) -> AsyncIterator[int]:
    """A port whose first connection gets a trick, and every later one a server that says Finish."""
    tricked = False
    async with serve_websocket(finish, "127.0.0.1", 0, compression=None) as honest:
        target = next(iter(honest.sockets)).getsockname()[1]

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal tricked
            if not tricked:
                tricked = True
                await first(reader, writer)
                return
            far_reader, far = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(carry(reader, far), carry(far_reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
    await asyncio.sleep(0.01)


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(4096):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def after_the_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    reset(writer)


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Prot")
    writer.close()


async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write_eof()
    await reader.read()
    writer.close()


async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 40)
    writer.close()


@pytest.mark.parametrize("link", [None, "20mbps"])
@pytest.mark.parametrize("trick", [at_once, after_the_request, half_an_answer, half_closed, noise])
async def test_connection_lost_before_there_is_a_websocket(trick: Trick, link: str | None) -> None:
    async with tricky(trick) as port:
        profile = profile_from_flags(bandwidth=link) if link else None
        options = PhoneOptions(server=f"ws://127.0.0.1:{port}", train=False, profile=profile)
        assert await asyncio.wait_for(play_phone(options, lambda line: None), WAIT_S) == "over"


async def test_socket_that_fails_within_a_send_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the middle of an upload, where the phone waits for its socket: here the second connection's Hello."""
    calls = 0

    class Failing(connection.PhoneConnection):
        async def drain(self) -> None:
            nonlocal calls
            calls += 1
            if calls in (1, 3):
                raise TimeoutError(110, "Connection timed out")
            await super().drain()

    monkeypatch.setattr(connection, "PhoneConnection", Failing)
    async with serve_websocket(finish, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        options = PhoneOptions(server=f"ws://127.0.0.1:{port}", train=False)
        assert await asyncio.wait_for(play_phone(options, lambda line: None), WAIT_S) == "over"
    assert calls > 3


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:1/", "ws://127.0.0.1:1/", "nonsense://"])
@pytest.mark.parametrize("link", [None, "20mbps"])
async def test_phone_goes_nowhere_else_than_it_was_told(elsewhere: str, link: str | None) -> None:
    def redirect(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(HTTPStatus.FOUND, "")
        response.headers["Location"] = elsewhere
        return response

    async with serve_websocket(finish, "127.0.0.1", 0, process_request=redirect) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        profile = profile_from_flags(bandwidth=link) if link else None
        options = PhoneOptions(server=f"ws://127.0.0.1:{port}", train=False, patience_s=0.1, profile=profile)
        with pytest.raises(LocalError, match="the server answered 302"):
            await asyncio.wait_for(play_phone(options, lambda line: None), WAIT_S)


async def test_phones_of_a_swarm_s_worker_lose_their_connections_one_by_one() -> None:
    """One phone of a worker is reset in mid-visit again and again, one breaks for good; the third plays to its end."""
    came = 0

    async def play(connection: ServerConnection) -> None:
        nonlocal came
        name = await connection.recv(decode=False)
        if b"lost" in name and (came := came + 1) < 4:
            raw = connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            connection.transport.abort()
            return
        if b"wrong" in name:
            await connection.send("text")
            await connection.wait_closed()
            return
        await connection.send(pack(layouts.welcome("r", shard=0, shards=3, seed=7, chunk_bytes=65536)))
        while b"whole" in name and came < 4:
            await asyncio.sleep(0.005)
        await connection.send(pack(Finish("over")))
        await connection.wait_closed()

    async with serve_websocket(play, "127.0.0.1", 0, compression=None) as server:
        address = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        phones = [PhoneOptions(server=address, train=False, name=name) for name in ("lost", "wrong", "whole")]
        ends = await asyncio.wait_for(_Worker(quiet=True).play_all(phones), WAIT_S)
    assert ends[0] == ends[2] == "over"
    assert isinstance(ends[1], LocalError) and "broke the protocol" in str(ends[1])


class OutlivedConnection:
    """A server that breaks a phone's first connection in mid-training, and the training, which ends when it `may`."""

    def __init__(self, welcome: Welcome, *more: Circle) -> None:
        self.welcome, self._more = welcome, more
        self.lines: list[str] = []
        self._may, self._began, self._trained = threading.Event(), threading.Event(), asyncio.Event()
        self._came = 0

    async def play(self, again: Callable[[ServerConnection, Hello], Awaitable[None]]) -> None:
        """Play the phone; `again` is the server on its second connection, which ends with the run."""

        async def serve(connection: ServerConnection) -> None:
            self._came += 1
            hello = unpack(await connection.recv(decode=False))
            assert isinstance(hello, Hello)
            if self._came == 1:
                await self.send(connection, self.welcome, Task(1, 0), *self._more, model(0))
                await asyncio.to_thread(self._began.wait, WAIT_S)
                connection.transport.abort()
                return
            await again(connection, hello)
            await self.send(connection, Finish("over"))
            await connection.wait_closed()

        async with serve_websocket(serve, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            playing = play_phone(PhoneOptions(server=f"ws://127.0.0.1:{port}"), self._say, make_local=self._local)
            assert await asyncio.wait_for(playing, WAIT_S) == "over"
        assert self._came == 2

    async def send(self, connection: ServerConnection, *messages: Any) -> None:
        for message in messages:
            await connection.send(pack(message))

    async def end_training(self) -> None:
        """Let the training end, between two messages: the phone has done all that the one before says."""
        await asyncio.sleep(0.1)
        self._may.set()
        await self._trained.wait()
        await asyncio.sleep(0.1)

    async def update(self, connection: ServerConnection) -> UpdateBegin | WholeUpdate:
        """Return the first bytes of an update, whatever comes before them."""
        while True:
            message = unpack(await connection.recv(decode=False))
            if isinstance(message, UpdateBegin | WholeUpdate):
                return message

    def _say(self, line: str) -> None:
        self.lines.append(line)
        if ": trained " in line:
            self._trained.set()

    def _local(self, name: str, device: str) -> Any:
        outer = self

        class Waiting(NoiseLearner):
            def train(self, *given: Any) -> Trained | None:
                outer._began.set()
                assert outer._may.wait(WAIT_S)
                return super().train(*given)

        class Local:
            def prepare(self, data_dir: str | None) -> None:
                pass

            def learner(self, welcome: Welcome, data_dir: str | None) -> Learner:
                return Waiting(welcome)

        return Local()


def model(version: int) -> ModelBegin:
    whole = bytes(4 * layouts.LAYOUTS["tiny"].size)
    return ModelBegin(version, NOTHING, "float32", [len(whole)], digest(whole), 0, whole)


@pytest.mark.parametrize("ends", ["before Welcome", "before Task", "after Task"])
async def test_update_whose_training_outlived_a_connection_is_sent_on_the_next_one(ends: str) -> None:
    """Nobody has to ask for it twice, at whatever moment of the next visit the training ends."""
    outlived = OutlivedConnection(layouts.welcome("r", model="tiny", shard=0, shards=1, chunk_bytes=65536))

    async def again(connection: ServerConnection, hello: Hello) -> None:
        assert (hello.held_version, hello.pending_round) == (0, NOTHING)
        for moment, message in (
            ("before Welcome", outlived.welcome),
            ("before Task", Task(1, 0)),
            ("after Task", None),
        ):
            if moment == ends:
                await outlived.end_training()
            if message is not None:
                await outlived.send(connection, message)
        assert (await outlived.update(connection)).round == 1

    await outlived.play(again)


@pytest.mark.parametrize("knows_its_circle", [False, True])
async def test_phone_whose_round_went_on_while_it_was_away_takes_part_in_the_next_circle(
    knows_its_circle: bool,
) -> None:
    """Its update of the round before, of which nothing ever left it, stands in the way of none."""
    outlived = OutlivedConnection(WELCOME, *([GOOD] if knows_its_circle else []))

    async def again(connection: ServerConnection, hello: Hello) -> None:
        await outlived.send(connection, outlived.welcome)
        await outlived.end_training()
        await outlived.send(connection, Task(2, 1), replace(GOOD, round=2), model(1))
        assert (await outlived.update(connection)).round == 2

    await outlived.play(again)
    assert "round 1: over before this phone knew with whom its update is summed" in outlived.lines


async def test_training_of_a_round_that_is_over_may_end_while_the_next_model_comes() -> None:
    """Nothing of its update can be sent in a circle run, and it stands in the way of no later round."""
    outlived = OutlivedConnection(WELCOME, GOOD)

    async def again(connection: ServerConnection, hello: Hello) -> None:
        await outlived.send(connection, outlived.welcome, Task(2, 1), replace(GOOD, round=2))
        await outlived.end_training()
        await outlived.send(connection, model(1))
        assert (await outlived.update(connection)).round == 2

    await outlived.play(again)
