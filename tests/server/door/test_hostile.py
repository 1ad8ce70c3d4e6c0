"""Peers that break each limit: they are told why, and the honest phone's round ends all the same."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from featherfed.server.door.limits import FRAME_BYTES, HELLO_BYTES, WAITING_FRAMES
from featherfed.wire.messages import Accepted, Ack, UpdateBegin, UpdateChunk, pack
from tests.server.peer import CountedClient, Peer, digest, hello, peer

Serve = Callable[..., Any]
WAIT_S = 30.0
ELSEWHERE = "127.0.0.2"
"""Another address of this machine, for strangers."""


async def play_honest(honest: Peer, served: Any) -> dict[str, Any]:
    """Play the one round as the phone that has joined; return the round's row."""
    await honest.upload(1, honest.update(await honest.task()))
    assert await honest.receive_until(Accepted) == Accepted(1)
    assert await asyncio.wait_for(served.ended, WAIT_S) is None
    (row,) = served.report()["rounds"]
    assert row["state"] == "closed"
    return row  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def tcp(
    address: str, source: str = ELSEWHERE
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.removeprefix("ws://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def stranger(address: str, source: str = ELSEWHERE) -> AsyncIterator[Peer]:
    where = connect(
        address, compression=None, proxy=None, create_connection=CountedClient, local_addr=(source, 0), max_size=None
    )
    async with where as connection:
        assert isinstance(connection, CountedClient)
        yield Peer(connection)


async def refused(address: str, source: str = ELSEWHERE) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with stranger(address, source):
            pass
    return caught.value.response.status_code, (caught.value.response.body or b"").decode()


# Connections


async def test_connections_in_all(serve: Serve) -> None:
    async with serve(phones=1, entrance={"max_connections": 3}) as served, peer(served.address) as honest:
        await honest.join("honest")
        async with stranger(served.address), tcp(served.address):
            status, sentence = await refused(served.address)
            assert status == 503
            assert sentence == "this server has 3 connections, its limit; come again later\n"
        # Who leaves makes room.
        await asyncio.sleep(0.05)
        async with stranger(served.address):
            pass
        await play_honest(honest, served)


async def test_connections_of_one_address(serve: Serve) -> None:
    async with (
        serve(phones=1, entrance={"max_per_address": 2}) as served,
        tcp(served.address),
        stranger(served.address),
    ):
        status, sentence = await refused(served.address)
        assert status == 503
        assert sentence == f"your address {ELSEWHERE} has 2 connections, its limit; come again later\n"
        async with peer(served.address) as honest:
            await honest.join("honest")
            await play_honest(honest, served)


async def test_handshakes_under_way_make_room_for_an_honest_one(serve: Serve) -> None:
    async with (
        serve(phones=1, entrance={"max_handshakes": 3}) as served,
        tcp(served.address) as (oldest, _),
        stranger(served.address) as second,
        tcp(served.address) as (third, _),
        peer(served.address) as honest,
    ):
        await honest.join("honest")
        answer = await asyncio.wait_for(oldest.read(), WAIT_S)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"\r\n\r\n3 connections wait to be admitted, the limit; come again later\n")
        # The honest phone is no stranger any more: one more stranger is welcome, the next displaces the second.
        async with tcp(served.address), tcp(served.address, "127.0.0.3"):
            assert await second.closed() == (
                4009,
                "3 connections wait to be admitted, the limit; come again later",
            )
            assert not third.at_eof()
        await play_honest(honest, served)
        # They have done nothing wrong.
        assert served.store.faults() == []


async def test_a_flood_of_one_address_displaces_itself_only_slowly(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(phones=1, entrance={"max_handshakes": 2}) as served, peer(served.address) as honest:
        await honest.join("honest")
        async with tcp(served.address) as (oldest, _), tcp(served.address):
            status, sentence = await refused(served.address)
            assert (status, sentence) == (503, "2 connections wait to be admitted, the limit; come again later\n")
            assert not oldest.at_eof()
            monkeypatch.setattr("featherfed.server.door.doorkeeper.PATIENCE_S", 0.0)
            async with stranger(served.address):
                assert (await asyncio.wait_for(oldest.read(), WAIT_S)).startswith(b"HTTP/1.1 503 ")
        await play_honest(honest, served)


async def test_five_hundred_knocks_at_once_keep_no_honest_phone_out(serve: Serve) -> None:
    async with serve(phones=1, entrance={"max_handshakes": 8}) as served, contextlib.AsyncExitStack() as knocking:
        async with asyncio.TaskGroup() as group:
            for _ in range(500):
                group.create_task(knocking.enter_async_context(tcp(served.address)))
        async with peer(served.address) as honest:
            await honest.join("honest")
            await play_honest(honest, served)


# Before the Hello


async def test_endless_http_request(serve: Serve) -> None:
    async with serve(phones=1) as served, peer(served.address) as honest:
        await honest.join("honest")
        async with tcp(served.address) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            with contextlib.suppress(OSError):
                for _ in range(5):
                    writer.write(b"X-Filler: " + b"x" * 2000 + b"\r\n")
                    await writer.drain()
            answer = await asyncio.wait_for(reader.read(), WAIT_S)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.endswith(b"HTTP request exceeds limit of 8192 bytes\n")
        await play_honest(honest, served)


async def test_line_that_is_too_long_is_answered_once(serve: Serve) -> None:
    """The library answers what is too long for it and ends its half: nothing may be written after that."""
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with serve(phones=1) as served, peer(served.address) as honest:
        await honest.join("honest")
        async with tcp(served.address) as (reader, writer):
            writer.write(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(OSError):
                await writer.drain()
                answer = await asyncio.wait_for(reader.read(), WAIT_S)
                assert answer.count(b"HTTP/1.1 ") == 1
        await play_honest(honest, served)
    assert not faults


async def test_silence_before_the_upgrade_and_before_the_hello(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherfed.server.service.OPEN_S", 0.3)
    monkeypatch.setattr("featherfed.server.service.HELLO_S", 0.3)
    async with serve(phones=1) as served, peer(served.address) as honest:
        await honest.join("honest")
        async with tcp(served.address) as (reader, writer), stranger(served.address) as silent:
            writer.write(b"GET / HTTP/1.1\r\n")
            # There is no WebSocket yet, and nobody has asked for anything: it is closed without a word.
            assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
            assert await silent.closed() == (4001, "no Hello within 0.3 seconds")
        await play_honest(honest, served)


async def test_large_message_before_the_hello(serve: Serve) -> None:
    async with serve(phones=1) as served, peer(served.address) as honest, stranger(served.address) as other:
        await honest.join("honest")
        await other.send(bytes(HELLO_BYTES + 1))
        assert await other.closed() == (
            1009,
            f"frame with {HELLO_BYTES + 1} bytes exceeds limit of {HELLO_BYTES} bytes",
        )
        await play_honest(honest, served)
        (fault,) = served.store.faults()
    assert (fault.phone, fault.code) == ("stranger", 1009)


# Phones that were admitted. Their fault is theirs: the round goes on without them.


@contextlib.asynccontextmanager
async def joined(serve: Serve, **settings: Any) -> AsyncIterator[tuple[Any, Peer, Peer]]:
    async with serve(**settings) as served, peer(served.address) as honest, stranger(served.address) as wrong:
        await wrong.join("wrong")
        await honest.join("honest")
        await wrong.task()
        yield served, honest, wrong


async def expect_failed(served: Any, honest: Peer, wrong: Peer, code: int, sentence: str) -> None:
    assert await wrong.closed() == (code, sentence)
    row = await play_honest(honest, served)
    (fault,) = served.store.faults()
    assert (fault.phone, fault.code, fault.sentence) == ("wrong", code, sentence)
    assert (row["accepted"], row["failed"]) == (1, 1)


async def test_message_larger_than_the_chunk_that_was_granted(serve: Serve) -> None:
    async with joined(serve) as (served, honest, wrong):
        # The header of a frame of a gigabyte is enough: nothing is buffered to find out.
        wrong.connection.transport.write(b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"mask")
        await expect_failed(
            served, honest, wrong, 1009, f"frame with {1 << 30} bytes exceeds limit of {FRAME_BYTES} bytes"
        )


async def test_fragmented_message(serve: Serve) -> None:
    async with joined(serve) as (served, honest, wrong):
        with contextlib.suppress(ConnectionClosed):
            await wrong.connection.send([b"\x93", b"\x08", b"\x01\x00"])
        await expect_failed(served, honest, wrong, 4001, "fragmented message; each message is one frame")


async def test_update_of_one_byte_chunks(serve: Serve) -> None:
    """Each of them would be a row and a write to the disk, also where the phone waits for each Ack."""
    async with joined(serve) as (served, honest, wrong):
        with contextlib.suppress(ConnectionClosed):
            await wrong.send(UpdateBegin(1, 100_000, b"12345678", 1, 0, b"x"))
            for offset in range(1, 10_000):
                assert await wrong.receive_until(Ack) == Ack(1, offset)
                await wrong.send(UpdateChunk(offset, b"x"))
        await expect_failed(served, honest, wrong, 4008, "more than 100 frames a second of less than 1024 bytes")


async def test_frames_that_wait_to_be_handled(serve: Serve) -> None:
    async with joined(serve) as (served, honest, wrong):
        await wrong.send(UpdateBegin(1, 50_000, b"12345678", 1, 0, b""))
        # At once, so that one read of the server's brings them all: larger ones would wait in the kernel.
        frames = b""
        for offset in range(0, 50_000, 500):
            chunk = pack(UpdateChunk(offset, bytes(500)))
            frames += b"\x82\xfe" + struct.pack("!H", len(chunk)) + bytes(4) + chunk
        wrong.connection.transport.write(frames)
        await expect_failed(
            served, honest, wrong, 4008, f"more than {WAITING_FRAMES} frames of less than 1024 bytes wait to be handled"
        )


async def test_pings_without_end(serve: Serve) -> None:
    async with joined(serve) as (served, honest, wrong):
        wrong.connection.transport.write((b"\x89\xfd" + bytes(4) + bytes(125)) * 1000)
        await expect_failed(served, honest, wrong, 4008, "more than 100 frames a second of less than 1024 bytes")


async def test_phone_that_never_reads_its_pongs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster than anybody may ping, so that the test need not take an hour."""
    monkeypatch.setattr("featherfed.wire.guarding.UNREAD_BYTES", 4096)
    monkeypatch.setattr("featherfed.wire.guarding.SMALL_BYTES", 0)
    async with joined(serve) as (served, honest, wrong):
        wrong.connection.transport.pause_reading()
        deadline_s = asyncio.get_running_loop().time() + WAIT_S
        while not served.watcher.told("fault"):
            assert asyncio.get_running_loop().time() < deadline_s, "the server keeps all pongs"
            wrong.connection.transport.write((b"\x89\xfd" + bytes(4) + bytes(125)) * 100)
            await asyncio.sleep(0.005)
        assert served.watcher.told("fault") == [("wrong", 4008, "left more than 4096 bytes unread")]
        wrong.connection.transport.resume_reading()
        await play_honest(honest, served)


async def test_claim_of_more_examples_than_there_can_be(serve: Serve) -> None:
    async with joined(serve) as (served, honest, wrong):
        await wrong.send(UpdateBegin(1, 3, digest(b"abc"), 1 << 52, 0, b"abc"))
        await expect_failed(
            served,
            honest,
            wrong,
            4004,
            f"update claims {1 << 52} examples; a phone of this run can have 719 (--max-examples)",
        )


# What is kept of it all


async def test_faults_without_end_leave_a_bounded_trace(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherfed.server.phones.faultbook.KEPT_OF_STRANGERS", 3)
    async with serve(phones=1) as served, peer(served.address) as honest:
        await honest.join("honest")
        for _ in range(31):
            async with stranger(served.address) as other:
                await other.send(b"nonsense")
                assert (await other.closed())[0] == 4001
        await play_honest(honest, served)
        sentences = [fault.sentence for fault in served.store.faults()]
    assert len(sentences) == 4
    assert sentences[-1].endswith("(number 30; not all are kept)")
    assert len(served.watcher.told("fault")) == 4


async def test_a_thousand_names_leave_one_row(serve: Serve) -> None:
    """Who is refused a shard is forgotten: neither names nor the ledger grow with those who knock."""
    async with serve(phones=1) as served, peer(served.address) as honest:
        await honest.join("honest")
        for number in range(50):
            async with stranger(served.address) as other:
                await other.send(hello(f"stranger-{number}"))
                assert (await other.closed())[0] == 4007
        await play_honest(honest, served)
        assert served.store.phones() == {0: "honest"}
        assert {(number, shard) for number, shard, _ in served.store.traffic()} == {(1, -1), (1, 0)}
