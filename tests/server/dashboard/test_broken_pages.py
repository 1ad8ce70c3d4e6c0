"""Browsers and scrapers whose connections break: each ends alone, and the page and the run go on."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from featherfed.server.dashboard import live as live_module
from featherfed.server.dashboard.serving import open_page, open_socket
from tests.cutting import LINGER_NOT

from .stage import Play


def request(path: str, host: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *more, "", ""]).encode()


async def ask(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path, f"127.0.0.1:{port}", "Connection: close"))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


@contextlib.asynccontextmanager
async def knocks(port: int, said: bytes, read_bytes: int) -> AsyncIterator[socket.socket]:
    loop, sock = asyncio.get_running_loop(), socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    with sock:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, said)
        if read_bytes:
            assert await loop.sock_recv(sock, read_bytes)
        yield sock


async def test_pages_and_scrapers_that_break_anywhere_end_alone(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live_module, "TICK_S", 0.01)
    monkeypatch.setattr(live_module, "ALIVE_S", 0.02)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    caplog.set_level(logging.WARNING, "asyncio")
    where = open_socket("127.0.0.1:0", None)
    port = where.sock.getsockname()[1]
    host = f"127.0.0.1:{port}"
    async with open_page(where, play.scene, lambda: None, tmp_path):
        name = play.scene.about.name
        events, metrics = request(f"/api/runs/{name}/events", host), request("/metrics", host)
        big = request("/static/page.js", host)
        for number in range(3):
            play.come(number)
            for said in (events, metrics, big, events[:20], b"\x16\x03\x01\x02\x00\x01", b"GET /\x00 HTTP/1.1\r\n\r\n"):
                whole = said.endswith(b"\r\n\r\n")
                for read_bytes in (0, 1, 2000) if whole else (0,):
                    async with knocks(port, said, read_bytes) as sock:
                        await asyncio.sleep(0.015 * (number == 1))
                        if number:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                        else:
                            sock.shutdown(socket.SHUT_WR)
            assert b"200 OK" in await ask(port, "/healthz") and b"200 OK" in await ask(port, "/metrics")
        # A page that reads nothing is still there when the run ends, and holds nothing up.
        async with knocks(port, events, 0), asyncio.timeout(10):
            await asyncio.sleep(0.05)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    while True:
                        play.come(0)
                        await asyncio.sleep(0.005)
    assert not faults and not caplog.records, (faults, caplog.text)
