import asyncio
import json
from contextlib import suppress

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
        assert (await request("GET", "/links", host="evil.example:80"))[0] == 400
        await control.close()


@pytest.mark.parametrize("text", ["9000", ":9000", "host:x", "host:99999"])
def test_an_address_without_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(LinkConfigError, match="HOST:PORT"):
        parse_address(text)
