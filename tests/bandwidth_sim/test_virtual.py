import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.bandwidth_sim.drop import DropRule, Ending
from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.outage import Schedule
from featherfed.bandwidth_sim.profile import Profile, find_profile
from featherfed.bandwidth_sim.virtual import VirtualDialer, VirtualLoop, run
from featherfed.bandwidth_sim.virtual_clock import DeadlockError, VirtualTimeError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def now() -> float:
    return asyncio.get_running_loop().time()


def symmetric(spec: LinkSpec) -> Profile:
    return Profile("test", spec, spec, "test")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
    except ConnectionError:
        pass


async def dialled(dialer: VirtualDialer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(sock=await dialer.connect("server", 80))  # type: ignore[arg-type]


@asynccontextmanager
async def through(
    profile: Profile, handler: Handler = echo
) -> AsyncIterator[tuple[VirtualDialer, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with await asyncio.start_server(handler, "server", 80), VirtualDialer(profile, 1) as dialer:
        yield dialer, *await dialled(dialer)


# The loop


def test_the_clock_starts_at_zero_and_jumps() -> None:
    async def main() -> tuple[float, float]:
        started_s = now()
        await asyncio.sleep(1e6)
        return started_s, now()

    assert run(main()) == (0.0, 1e6)


def test_timers_of_one_time_come_in_the_order_in_which_they_were_set() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        for number in range(50):
            asyncio.get_running_loop().call_at(3.0, order.append, number)
        await asyncio.sleep(4)
        return order

    assert run(main()) == list(range(50))


def test_bytes_that_are_there_come_before_a_timer_of_the_same_time() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        async with through(symmetric(LinkSpec(delay_s=0.5))) as (_, reader, writer):
            due_s = now() + 1.0
            asyncio.get_running_loop().call_at(due_s, order.append, "timer")
            writer.write(b"!")
            await reader.read(1)
            assert now() == due_s
            order.append("bytes")
            await asyncio.sleep(1)
            return order

    assert run(main()) == ["bytes", "timer"]


def test_a_deadlock_names_who_waits_where() -> None:
    async def wait_for_godot() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(2)
        await asyncio.create_task(wait_for_godot(), name="vladimir")

    with pytest.raises(
        DeadlockError,
        match=r"nothing can happen any more at 2 s: .*vladimir in .*wait_for_godot test_virtual.py:.*Event.wait",
    ):
        run(main())


def test_a_link_at_rate_zero_is_a_deadlock_and_not_a_loop() -> None:
    async def main() -> None:
        dialer = VirtualDialer(symmetric(LinkSpec(rate_bytes_per_s=0)), 1)
        await dialer.connect("server", 80)

    with pytest.raises(DeadlockError, match="pass_empty"):
        run(main())


def test_the_clock_respects_its_limit() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(10)

    with pytest.raises(VirtualTimeError, match="limit of 60 s"):
        run(main(), limit_s=60)


def test_jobs_run_inline_and_take_the_time_that_is_stated() -> None:
    async def main() -> tuple[int, float, bool]:
        loop = asyncio.get_running_loop()
        inline = await loop.run_in_executor(None, threading.get_ident) == threading.get_ident()
        result = await loop.run_in_executor(None, lambda: 7)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return result, now(), inline

    assert run(main(), job_s=lambda job, result: 1.5 if result == 7 else 0.0) == (7, 1.5, True)


def test_the_clock_waits_for_work_outside_of_the_loop_before_it_jumps() -> None:
    seen: list[tuple[str, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        waiting = [loop.create_future() for _ in range(2)]

        def at_rest() -> bool:
            for future in waiting:
                if not future.done():
                    future.set_result(None)
                    return True
            return False

        loop.at_rest = at_rest

        async def wait(name: str, future: "asyncio.Future[None]") -> None:
            await future
            seen.append((name, loop.time()))

        async with asyncio.TaskGroup() as group:
            loop.call_later(1, lambda: seen.append(("timer", loop.time())))
            for name, future in zip("ab", waiting, strict=True):
                group.create_task(wait(name, future))
            await asyncio.sleep(2)

    run(main())
    assert seen == [("a", 0.0), ("b", 0.0), ("timer", 1.0)]


def test_threads_are_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            with pytest.raises(VirtualTimeError, match="no threads"):
                loop.run_in_executor(pool, int)
            with pytest.raises(VirtualTimeError, match="no threads"):
                pool.submit(loop.call_soon_threadsafe, int).result()
            with pytest.raises(VirtualTimeError, match="no threads"):
                loop.set_default_executor(pool)

    run(main())


def test_random_is_seeded_and_put_back() -> None:
    async def draw() -> float:
        return random.random()

    random.seed(99)
    state = random.getstate()
    first, again, other = run(draw(), seed=1), run(draw(), seed=1), run(draw(), seed=2)
    assert first == again != other
    assert random.getstate() == state


def test_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(20_000):
            loop.call_later(1e9, int).cancel()
        return len(loop._due)  # type: ignore[attr-defined]

    assert run(main()) < 3000


# The network


def test_an_upload_takes_its_time_on_the_wire() -> None:
    spec = LinkSpec(rate_bytes_per_s=32_000, delay_s=0.1)

    async def main() -> tuple[float, bytes]:
        got = bytearray()

        async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.extend(await reader.read(-1))
            done.set_result(now())
            writer.close()

        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        async with through(symmetric(spec), sink) as (_, _, writer):
            assert now() == pytest.approx(0.2)  # the handshake's round trip
            writer.write(bytes(range(256)) * 4000)
            writer.write_eof()
            began_s = now()
            return await done - began_s, bytes(got)

    # Nothing but the link's own arithmetic: to the microsecond.
    took_s, got = run(main())
    assert got == bytes(range(256)) * 4000
    assert took_s == pytest.approx(1_024_000 / spec.goodput_bytes_per_s + spec.delay_s, abs=1e-6)


specs = st.builds(
    LinkSpec,
    rate_bytes_per_s=st.floats(1000, 1e7),
    delay_s=st.floats(0, 0.5),
    jitter_s=st.floats(0, 0.2),
    loss=st.floats(0, 0.2),
    queue_s=st.floats(0, 1),
)


@given(spec=specs, sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=8), pauses=st.booleans())
def test_a_stream_loses_no_byte_and_keeps_its_order_on_any_link(spec: LinkSpec, sizes: list[int], pauses: bool) -> None:
    sent = random.Random(sum(sizes)).randbytes(sum(sizes))

    async def main() -> tuple[bytes, float]:
        async with through(symmetric(spec)) as (_, reader, writer):
            began_s, at, got = now(), 0, bytearray()
            for size in sizes:
                writer.write(sent[at : at + size])
                at += size
                if pauses:
                    await asyncio.sleep(0.1)
            writer.write_eof()
            while data := await reader.read(5000):
                got += data
                if pauses:
                    await asyncio.sleep(0.01)
            return bytes(got), now() - began_s

    got, took_s = run(main())
    assert got == sent
    assert took_s >= len(sent) / spec.rate_bytes_per_s + max(0.0, 2 * (spec.delay_s - spec.jitter_s))


def test_the_sender_waits_for_the_link_and_the_reader() -> None:
    spec = LinkSpec(rate_bytes_per_s=32_000)

    async def main() -> None:
        async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        async with through(symmetric(spec), idle) as (dialer, _, writer):
            writer.transport.set_write_buffer_limits(high=1000)
            writer.write(bytes(500_000))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 3600)
            # The reader's own buffer (twice 64 KiB), and a full window behind it.
            assert dialer.link.up.counters.accepted_bytes <= 2 * 65536 + spec.window_bytes + 2 * spec.piece_bytes

    run(main())


def test_two_connections_of_one_phone_share_its_link() -> None:
    async def main() -> list[float]:
        ends = []

        async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)
            ends.append(now())
            writer.close()

        async with through(symmetric(LinkSpec(rate_bytes_per_s=50_000)), sink) as (dialer, _, first):
            _, second = await dialled(dialer)
            for writer in (first, second):
                writer.write(bytes(200_000))
                writer.write_eof()
            while len(ends) < 2:
                await asyncio.sleep(1)
            return ends

    both_s = 400_000 / LinkSpec(rate_bytes_per_s=50_000).goodput_bytes_per_s
    first_s, second_s = run(main())
    # A piece each in turn: they end together, not one after the other.
    assert second_s == pytest.approx(both_s, abs=0.1)
    assert first_s > 0.9 * both_s


def test_half_close_passes_and_both_ends_close() -> None:
    async def main() -> tuple[bytes, int]:
        async with through(symmetric(LinkSpec(rate_bytes_per_s=1e6))) as (dialer, reader, writer):
            writer.write(b"question")
            writer.write_eof()
            with pytest.raises(RuntimeError, match="write_eof"):
                writer.write(b"more")
            answer = await reader.read(-1)
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(1)
            return answer, dialer.link.open_connections

    assert run(main()) == (b"question", 0)


def test_an_abort_is_a_reset_at_the_other_end_one_way_later() -> None:
    async def main() -> tuple[str, float]:
        seen: asyncio.Future[tuple[str, float]] = asyncio.get_running_loop().create_future()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read(1)
            except ConnectionResetError as error:
                seen.set_result((type(error).__name__, now()))

        async with through(symmetric(LinkSpec(delay_s=0.25)), wait) as (_, _, writer):
            writer.transport.abort()
            return await seen

    assert run(main()) == ("ConnectionResetError", 0.75)


@pytest.mark.parametrize("how", ["reset", "close", "stall"])
def test_a_drop_ends_a_connection_after_its_bytes(how: Ending) -> None:
    rule = DropRule(after_bytes=20_000, how=how)
    spec = LinkSpec(rate_bytes_per_s=1e6)
    events: list[str] = []

    async def main() -> int:
        async with through(Profile("test", replace(spec, drop=rule), spec, "test")) as (dialer, reader, writer):
            writer.write(bytes(50_000))
            echoed = 0
            try:
                async with asyncio.timeout(60):
                    while data := await reader.read(1 << 16):
                        echoed += len(data)
            except (ConnectionError, TimeoutError):
                pass
            if how != "stall":
                writer.close()
            assert (dialer.link.open_connections == 1) == (how == "stall")
            if how != "stall":
                assert dialer.link.up.counters.accepted_bytes == 20_000
            return echoed

    assert run(main(), log=lambda t_s, connection, event, num_bytes: events.append(event)) <= 20_000
    assert f"drop-{how}" in events


def test_an_outage_stops_what_is_under_way_and_what_comes_back() -> None:
    spec = LinkSpec(rate_bytes_per_s=1e6, outage=Schedule(((1.0, 5.0),)))

    async def main() -> float:
        async with through(symmetric(spec)) as (_, reader, writer):
            await asyncio.sleep(1.5)
            writer.write(b"anybody?")
            await reader.readexactly(8)
            return now()

    assert 6.0 < run(main()) < 12.0


def test_a_link_can_be_changed_and_ended_while_it_runs() -> None:
    async def main() -> float:
        async with through(symmetric(LinkSpec(rate_bytes_per_s=1000))) as (dialer, reader, writer):
            dialer.link.change(symmetric(LinkSpec(rate_bytes_per_s=0)))
            writer.write(b"hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(5), 100)
            dialer.link.change(symmetric(LinkSpec(rate_bytes_per_s=1e6)))
            assert await reader.readexactly(5) == b"hello"
            answered_s = now()
            dialer.link.end("reset")
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            return answered_s

    assert run(main()) == pytest.approx(100, abs=0.01)


def test_nobody_listening_is_refused_after_a_round_trip() -> None:
    async def main() -> float:
        with pytest.raises(ConnectionRefusedError, match="nowhere"):
            await VirtualDialer(find_profile("2g"), 1).connect("nowhere", 80)
        refused_s = now()
        with pytest.raises(ConnectionRefusedError, match="nowhere"):
            await asyncio.open_connection("nowhere", 80)
        return refused_s

    assert run(main()) == pytest.approx(0.8)


def test_an_address_is_taken_once_and_port_zero_picks_one() -> None:
    async def main() -> None:
        first = await asyncio.start_server(echo, "127.0.0.1", 0)
        host, port = first.sockets[0].getsockname()
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(echo, host, port)
        first.close()
        await first.wait_closed()
        async with await asyncio.start_server(echo, host, port) as second:
            assert second.is_serving()

    run(main())


def test_tls_and_real_sockets_are_refused_with_a_sentence() -> None:
    async def main() -> None:
        with pytest.raises(VirtualTimeError, match="no TLS"):
            await asyncio.open_connection("server", 443, ssl=True)
        with pytest.raises(VirtualTimeError, match="no sockets"):
            await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=object())

    run(main())


def test_a_protocol_that_fails_ends_its_connection() -> None:
    class Broken(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise ValueError("broken")

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
        await loop.create_server(Broken, "server", 80)
        reader, writer = await asyncio.open_connection("server", 80)
        writer.write(b"!")
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        return told

    assert run(main()) == ["broken"]


def test_the_cost_of_an_event_does_not_grow_with_idle_connections() -> None:
    """Counted, not timed: what one busy client touches is the same beside 10 and beside 1,000 idle ones."""

    def events(idle: int) -> int:
        count = 0

        def log(*event: object) -> None:
            nonlocal count
            count += 1

        async def main() -> int:
            async with through(symmetric(LinkSpec(rate_bytes_per_s=1e5))) as (dialer, reader, writer):
                others = [await dialled(dialer) for _ in range(idle)]
                before, scheduled = count, asyncio.get_running_loop()._count  # type: ignore[attr-defined]
                writer.write(bytes(10_000))
                await reader.readexactly(10_000)
                assert len(others) == idle
                return count - before + asyncio.get_running_loop()._count - scheduled  # type: ignore[attr-defined]

        return run(main(), log=log)

    assert events(10) == events(1000)
