import asyncio
import errno
import json
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest

from featherfed.bandwidth_sim.control import Control
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.proxy import Proxy, parse_address


def profile() -> Profile:
    return Profile("test", LinkSpec(rate_bytes_per_s=1e6), LinkSpec(rate_bytes_per_s=1e6), "test")


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(-1))
    await hang_up(writer)


async def test_any_tcp_program_goes_through_and_half_close_arrives() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Proxy(profile(), 0, server.sockets[0].getsockname()) as proxy:
        reader, writer = await asyncio.open_connection(*await proxy.listen("127.0.0.1", 0))
        writer.write(b"question")
        writer.write_eof()
        assert await reader.read(-1) == b"question"
        await hang_up(writer)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_refused_target_closes_the_connection_and_is_logged() -> None:
    events: list[dict[str, object]] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    async with Proxy(profile(), 0, target, log=events.append) as proxy:
        reader, writer = await asyncio.open_connection(*await proxy.listen("127.0.0.1", 0))
        assert await reader.read(1) == b""
        await hang_up(writer)
    assert events[0]["event"] == "refused"


async def test_the_control_port_shows_and_changes_a_running_link() -> None:
    async with Proxy(profile(), 0, ("127.0.0.1", 1)) as proxy:
        control = Control({"test": proxy.link})
        port = await control.listen(0)

        async def request(
            method: str, path: str, body: str = "", host: str = "127.0.0.1:1"
        ) -> tuple[int, dict[str, object]]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())
            answered = (await reader.read(-1)).split(b"\r\n\r\n", 1)
            await hang_up(writer)
            return int(answered[0].split()[1]), json.loads(answered[1])

        assert (await request("GET", "/links"))[1].keys() == {"test"}
        assert (await request("POST", "/links/test", '{"rate": "64kbps", "rtt": "80ms"}'))[0] == 200
        assert proxy.link.up.link.spec.rate_bytes_per_s == 8000
        assert proxy.link.down.link.spec.delay_s == 0.04
        assert (await request("POST", "/links/test", '{"off": true}'))[0] == 200
        assert proxy.link.up.link.spec.rate_bytes_per_s == 0
        assert (await request("POST", "/links/test", '{"off": false}'))[0] == 200
        assert proxy.link.up.link.spec.rate_bytes_per_s == 8000
        for body in ("{", "[]", '{"rate": 5}', '{"speed": "1kbps"}', '{"end": "bang"}', '{"off": 1}'):
            assert (await request("POST", "/links/test", body))[0] == 400
        assert (await request("GET", "/links/other"))[0] == 404
        assert (await request("PUT", "/links/test"))[0] == 405
        assert (await request("POST", "/links/test", '{"rate": ' + "9" * 5000 + "}"))[0] == 400
        assert (await request("POST", "/links/test", "[" * 50_000))[0] == 400
        assert (await request("GET", "/links", host="evil.example:80"))[0] == 400
        await control.close()


@pytest.mark.parametrize(
    "text",
    [
        "9000",
        ":9000",
        "host:x",
        "host:99999",
        "a..b:1",
        "host:²",
        "host:" + "1" * 5000,
        "[[::1]]:9",
        "ann@host:1",
        "h/x:1",
    ],
)
def test_an_address_without_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(LinkConfigError, match="HOST:PORT"):
        parse_address(text)


def test_port_0_is_nowhere_to_lead_connections_to() -> None:
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    with pytest.raises(LinkConfigError, match="nothing listens on port 0; name one from 1 to 65535"):
        parse_address("127.0.0.1:0", least=1)


LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER's: closing is a reset."""


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()


@pytest.mark.parametrize("kept_bytes", [0, 1, 300_000])
async def test_connections_that_break_on_either_side_end_alone(kept_bytes: int) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = await reader.readexactly(1)
        with suppress(OSError):
            writer.write(bytes(1_000_000))
            if what == b"r":
                reset(writer)
            else:
                await writer.drain()
                await hang_up(writer)

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server, Proxy(profile(), 0, server.sockets[0].getsockname()) as proxy:
        where = await proxy.listen("127.0.0.1", 0)
        whole_reader, whole = await asyncio.open_connection(*where)
        for what in (b"r", b"w", b"", b"r", b"w"):
            reader, writer = await asyncio.open_connection(*where)
            writer.write(what)
            if what == b"w":
                await reader.readexactly(kept_bytes)
                reset(writer)
            else:
                if not what:
                    writer.write_eof()
                with suppress(ConnectionError):
                    await reader.read()
                await hang_up(writer)
        whole.write(b"w")
        assert len(await whole_reader.read(-1)) == 1_000_000
        await hang_up(whole)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_accept_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, errors = asyncio.get_running_loop(), [errno.ECONNABORTED, errno.EMFILE, errno.EPROTO]
    accept = loop.sock_accept

    async def fail_first(listener: socket.socket) -> tuple[socket.socket, object]:
        if errors:
            raise OSError(errors.pop(), "injected")
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", fail_first)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Proxy(profile(), 0, server.sockets[0].getsockname()) as proxy:
        reader, writer = await asyncio.open_connection(*await proxy.listen("127.0.0.1", 0))
        writer.write(b"question")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), 10) == b"question"
        await hang_up(writer)


async def test_connections_to_the_control_port_that_break_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(profile(), 0, ("127.0.0.1", 1)) as proxy:
        control = Control({"test": proxy.link})
        faults: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        port = await control.listen(0)
        for said in (
            b"",
            b"GET /li",
            b"POST /links/test HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            for way in ("rst", "fin"):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                await asyncio.sleep(0.005)
                if way == "rst":
                    reset(writer)
                else:
                    await hang_up(writer)
        handle = control.handle

        def time_out(*request: Any) -> tuple[int, object]:
            monkeypatch.setattr(control, "handle", handle)
            raise TimeoutError(errno.ETIMEDOUT, "injected, as the socket's")

        monkeypatch.setattr(control, "handle", time_out)
        for words in (b"", b"HTTP/1.1 200 OK"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /links HTTP/1.1\r\n\r\n")
            with suppress(ConnectionError):
                assert (await reader.read()).startswith(words)
            await hang_up(writer)
        await control.close()
        assert faults == []
