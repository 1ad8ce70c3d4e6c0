import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from featherfed.bandwidth_sim.drop import DropRule, Ending
from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.relay import LinkedDialer


def symmetric(spec: LinkSpec) -> Profile:
    return Profile("test", spec, spec, "test")


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            await hang_up(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_what_goes_in_comes_back_and_half_close_is_passed_on() -> None:
    async with echo_server() as port, LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=2e6)), 1) as dialer:
        sock = await dialer.connect("127.0.0.1", port)
        reader, writer = await asyncio.open_connection(sock=sock)
        data = bytes(range(256)) * 500
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
        counters = dialer.link.up.counters
        assert counters.accepted_bytes == counters.delivered_bytes == len(data)
        await hang_up(writer)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_upload_takes_no_less_than_its_time_on_the_wire() -> None:
    spec = LinkSpec(rate_bytes_per_s=400_000)
    async with echo_server() as port, LinkedDialer(symmetric(spec), 1) as dialer:
        reader, writer = await asyncio.open_connection(sock=await dialer.connect("127.0.0.1", port))
        started_s = asyncio.get_running_loop().time()
        writer.write(bytes(100_000))
        writer.write_eof()
        assert len(await reader.read(-1)) == 100_000
        assert asyncio.get_running_loop().time() - started_s >= 100_000 / spec.goodput_bytes_per_s
        await hang_up(writer)


async def test_a_sender_feels_the_link() -> None:
    async with echo_server() as port, LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=32_000)), 1) as dialer:
        sock = await dialer.connect("127.0.0.1", port)
        accepted = 0
        with sock:
            for _ in range(20):
                await asyncio.sleep(0.005)
                while True:
                    try:
                        accepted += sock.send(bytes(4096))
                    except BlockingIOError:
                        break
        assert accepted <= 32_000 + 0.4 * 32_000 + 0.5 * 32_000


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_drop_ends_the_connection_after_its_bytes(how: str) -> None:
    spec = LinkSpec(rate_bytes_per_s=1e6)
    rule = DropRule(after_bytes=20_000, how="reset" if how == "reset" else "close")
    profile = Profile("test", replace(spec, drop=rule), spec, "test")
    events: list[dict[str, object]] = []
    async with echo_server() as port, LinkedDialer(profile, 1, log=events.append) as dialer:
        reader, writer = await asyncio.open_connection(sock=await dialer.connect("127.0.0.1", port))
        writer.write(bytes(50_000))
        try:
            echoed = await reader.read(-1)
        except ConnectionError:
            echoed = b""
        assert len(echoed) <= 20_000
        while dialer.link.open_connections:
            await asyncio.sleep(0.01)
        assert events[-1]["event"] == f"drop-{how}"
        assert dialer.link.up.counters.accepted_bytes == 20_000
        await hang_up(writer)


async def test_a_stall_tells_nobody() -> None:
    spec = LinkSpec(rate_bytes_per_s=1e6)
    profile = Profile("test", replace(spec, drop=DropRule(after_s=0.02, how="stall")), spec, "test")
    async with echo_server() as port, LinkedDialer(profile, 1) as dialer:
        reader, writer = await asyncio.open_connection(sock=await dialer.connect("127.0.0.1", port))
        await asyncio.sleep(0.05)
        writer.write(b"anybody?")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        assert dialer.link.open_connections == 1
        await hang_up(writer)
    assert dialer.link.open_connections == 0


async def test_a_reset_of_the_server_reaches_the_phone() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()
        await hang_up(writer)

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=1e6)), 1) as dialer:
        sock = await dialer.connect(*server.sockets[0].getsockname())
        loop = asyncio.get_running_loop()
        with sock:
            await loop.sock_sendall(sock, bytes(2))
            with suppress(ConnectionError):
                assert await loop.sock_recv(sock, 1) == b""


async def test_a_refused_target_is_an_os_error_and_leaks_nothing() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    async with LinkedDialer(symmetric(LinkSpec()), 1) as dialer:
        with pytest.raises(OSError):
            await dialer.connect("127.0.0.1", port)


async def test_rate_zero_holds_everything_until_it_is_changed() -> None:
    free, nothing = symmetric(LinkSpec(rate_bytes_per_s=1e6)), symmetric(LinkSpec(rate_bytes_per_s=0))
    async with echo_server() as port, LinkedDialer(free, 1) as dialer:
        reader, writer = await asyncio.open_connection(sock=await dialer.connect("127.0.0.1", port))
        dialer.link.change(nothing)
        writer.write(b"hello")
        another = asyncio.create_task(dialer.connect("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(5), 0.05)
        assert not another.done()
        dialer.link.change(free)
        assert await reader.readexactly(5) == b"hello"
        (await another).close()
        await hang_up(writer)


async def test_a_full_path_that_nobody_reads_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await stop.wait()
        await hang_up(writer)

    stop = asyncio.Event()
    server = await asyncio.start_server(idle, "127.0.0.1", 0)
    async with server, LinkedDialer(symmetric(LinkSpec()), 1) as dialer:
        sock = await dialer.connect(*server.sockets[0].getsockname())
        loop = asyncio.get_running_loop()
        with sock:
            sending = asyncio.create_task(loop.sock_sendall(sock, bytes(8_000_000)))
            before = -1
            while dialer.link.up.counters.accepted_bytes > before:
                before = dialer.link.up.counters.accepted_bytes
                await asyncio.sleep(0.05)
            turns, run_once = 0, loop._run_once  # type: ignore[attr-defined]

            def count() -> None:
                nonlocal turns
                turns += 1
                run_once()

            monkeypatch.setattr(loop, "_run_once", count)
            await asyncio.sleep(0.2)
            assert turns < 20
            sending.cancel()
            stop.set()


async def test_no_descriptor_is_left_by_any_kind_of_end() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    ends: tuple[Ending, ...] = ("reset", "close", "stall")
    async with echo_server() as port:
        before = descriptors()
        async with LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=1e6, delay_s=0.01)), 1) as dialer:
            for how in ends:
                socks = [await dialer.connect("127.0.0.1", port) for _ in range(3)]
                for sock in socks:
                    await asyncio.get_running_loop().sock_sendall(sock, bytes(5000))
                dialer.link.end(how)
                await asyncio.sleep(0.05)
                for sock in socks:
                    sock.close()
        while descriptors() > before:
            await asyncio.sleep(0.01)
        assert dialer.link.open_connections == 0


async def test_keepalive_and_chunks_follow_the_link() -> None:
    slow = LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=1800)), 1)
    fast = LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=1e7)), 1)
    assert slow.chunk_bytes == int(1800 * 1448 / 1514)
    assert fast.chunk_bytes == 131072
    assert fast.keepalive() == (20.0, 20.0)
    interval_s, timeout_s = LinkedDialer(symmetric(LinkSpec(rate_bytes_per_s=32_000)), 1).keepalive(2_000_000)
    assert interval_s > 65 and timeout_s > 130
