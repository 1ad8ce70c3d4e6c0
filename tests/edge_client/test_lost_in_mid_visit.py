"""Whatever happens on a phone's connection, at whatever step, is a lost connection: the phone comes back."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.edge_client import backoff, connection
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.swarm import _Worker
from featherfed.errors import LocalError
from featherfed.wire.messages import Finish, pack
from tests import layouts
from tests.cutting import LINGER_NOT

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
