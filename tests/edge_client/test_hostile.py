"""Servers that mean no good: a phone holds what it declared, says a sentence and leaves, or goes on."""

import asyncio
import contextlib
import math
import re
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from featherfed.edge_client import visit
from featherfed.edge_client.limits import ANSWER_BYTES
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import LocalError
from featherfed.wire.closing import Close
from featherfed.wire.limits import SMALL_BURST
from featherfed.wire.messages import (
    MAX_FRAME_BYTES,
    NOTHING,
    Accepted,
    Ack,
    Cancel,
    Finish,
    Hello,
    ModelBegin,
    ModelChunk,
    UpdateBegin,
    Welcome,
    pack,
    unpack,
)
from tests import layouts
from tests.layouts import LAYOUTS
from tests.server.peer import digest

WAIT_S = 30.0
WELCOME = layouts.welcome("run", model="tiny", shard=0, shards=1, chunk_bytes=65536)
WHOLE = 4 * LAYOUTS["tiny"].size
FINISH = pack(Finish("done"))
Act = Callable[[ServerConnection], Awaitable[None]]


def task(round_number: int = 1, **changes: Any) -> bytes:
    """A Task with any values, also such as `pack` refuses."""
    packed: bytes = msgpack.packb([3, round_number, 0, changes])
    return packed


def begin(lengths: list[int], data: bytes = b"", spec: str = "float32", offset: int = 0) -> bytes:
    return pack(ModelBegin(0, NOTHING, spec, lengths, b"12345678", offset, data))


def sends(*frames: bytes | str) -> Act:
    async def act(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame)

    return act


def writes(data: bytes, times: int = 1) -> Act:
    """Put bytes on the wire that are no frames of the library's."""

    async def act(connection: ServerConnection) -> None:
        for _ in range(times):
            connection.transport.write(data)
            await connection.drain()

    return act


@contextlib.asynccontextmanager
async def hostile(act: Act, *, welcome: Welcome | None = WELCOME) -> AsyncIterator[tuple[str, list[int | None]]]:
    """Serve `act` after the Hello and Welcome; yield the address, and the codes with which phones leave."""
    closed: list[int | None] = []

    async def answer(connection: ServerConnection) -> None:
        await connection.recv()
        if welcome is not None:
            await connection.send(pack(welcome))
        with contextlib.suppress(OSError):
            await act(connection)
        await connection.wait_closed()
        closed.append(connection.close_code)

    async with serve_websocket(answer, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", closed


async def play(address: str, lines: list[str] | None = None, **changes: Any) -> str:
    said = [] if lines is None else lines
    options = PhoneOptions(**{"server": address, "train": False, "name": "phone", "patience_s": 0.3, **changes})
    return await asyncio.wait_for(play_phone(options, said.append), WAIT_S)


async def test_phone_that_comes_when_the_run_has_just_ended_ends_in_order() -> None:
    said = ["the run is over"]

    async def act(connection: ServerConnection) -> None:
        await connection.close(1000, said[0])

    async with hostile(act, welcome=None) as (address, _):
        assert await play(address) == "the run is over"
        # Of a server whose handler has failed.
        said[0] = ""
        with pytest.raises(LocalError, match="the server closed the connection"):
            await play(address)


# The HTTP upgrade


@contextlib.asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers any HTTP request with these bytes; yield its address and the requests."""
    requests: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirect_sends_neither_the_token_nor_the_phone_anywhere_else(status: int) -> None:
    async with raw(b"") as (elsewhere, there):
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere}/\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw(answer) as (address, here):
            with pytest.raises(LocalError, match=rf"the server answered {status} and points to {elsewhere}/"):
                await play(address, token="secret")
    assert b"Bearer secret" in here[0]
    assert there == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 4000) for number in range(100)),
        b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000),
        b"HTTP/1.1 503 Busy\r\n\r\n" + bytes(1_000_000),
    ],
    ids=["headers", "body", "body of no length"],
)
async def test_endless_http_answer_is_cut(answer: bytes) -> None:
    async with raw(answer) as (address, _):
        with pytest.raises(LocalError, match=f"HTTP answer exceeds limit of {ANSWER_BYTES} bytes"):
            await play(address)


async def test_what_a_server_writes_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    async with raw(b"HTTP/1.1 302 Moved\r\nLocation: \x9b2J\xe2\x80\xae\r\nContent-Length: 0\r\n\r\n") as (address, _):
        with pytest.raises(LocalError) as caught:
            await play(address)
    assert str(caught.value).isprintable()
    async with hostile(sends(pack(Finish("bye \x1b[2J\r\nand \u202egone")))) as (address, _):
        assert await play(address) == "bye ?[2J??and ?gone"

    async def close(connection: ServerConnection) -> None:
        await connection.close(4004, "no \x1b]0;title\x07")

    async with hostile(close) as (address, _):
        with pytest.raises(LocalError, match=r"closed the connection \(4004\): no \?\]0;title\?"):
            await play(address)


# Sizes and values


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        (sends(bytes(MAX_FRAME_BYTES + 1)), 1009, f"exceeds limit of {MAX_FRAME_BYTES} bytes"),
        (writes(b"\x82\x7f" + (1 << 62).to_bytes(8, "big")), 1009, f"exceeds limit of {MAX_FRAME_BYTES} bytes"),
        (sends(msgpack.packb([11, "x" * 1_000_000])), 1009, f"exceeds limit of {MAX_FRAME_BYTES} bytes"),
        (sends(msgpack.packb([11, "x" * 257])), 4001, "257 exceeds max_str_len(256)"),
        (writes(b"\x02\x01x\x80\x01y"), 4001, "fragmented message; each message is one frame"),
        (writes(b"\x02\x01x"), 4001, "fragmented message"),
        (writes(b"\x89\x7e\x00\xff" + bytes(255)), 1002, "control frame too long"),
        (writes(b"\x82\x81abcdx"), 1002, "incorrect masking"),
        (sends(begin([1 << 50])), 4001, f"part of {1 << 50} bytes exceeds the {WHOLE} bytes that float32 can need"),
        (sends(begin([1, WHOLE])), 4001, f"differences of {WHOLE + 1} bytes, and the whole model has {WHOLE}"),
        (sends(begin([8], bytes(9))), 4001, "chunk of 9 bytes at offset 0 exceeds 8 bytes"),
        (sends(begin([8], bytes(4)), pack(ModelChunk(4, bytes(5)))), 4001, "chunk of 5 bytes at offset 4 exceeds 8"),
        (sends(begin([8], b"", offset=4)), 4001, "model from byte 4 on, this phone has 0"),
        (sends(begin([3], b"abc", spec="zip(9)")), 4001, "the downlink is no codec of this phone"),
        (sends(task(lr=math.nan)), 4001, "not a message of protocol 3"),
        (sends(task(momentum=math.inf)), 4001, "not a message of protocol 3"),
        (sends(task(weight_decay=-1.0)), 4001, "training with --weight-decay -1.0 is not a number from 0"),
        (sends(task(epochs=0)), 4001, "training with --epochs 0 is below 1"),
        (sends(task(epochs=1 << 53)), 4001, f"training with --epochs {1 << 53} exceeds 1e+09"),
        (sends(task(epochs=True)), 4001, "training whose epochs is 'True'"),
        (sends(task(set={"shift": [1]})), 4001, "not a message of protocol 3"),
        (sends(task(set={"not a name": 1})), 4001, "'not a name' is not the name of a setting"),
        (sends(task(more=1)), 4001, "a change of 'more', which is no training setting"),
        (sends(task(uplink="zip(9)")), 4001, "the uplink is no codec of this phone"),
        (sends(task(uplink="é" * 100)), 4001, "the uplink is no codec of this phone"),
        (sends(task(uplink="rotate | " * 28)), 4001, "the uplink is no codec of this phone"),
        (sends(msgpack.packb([1, [[[]]]])), 4002, "the phone speaks"),
        (sends(b"\xdd\xff\xff\xff\xff"), 4001, "not msgpack"),
        (sends(pack(WELCOME)), 4001, "Welcome out of turn"),
    ],
)  # fmt: skip
async def test_fault_of_the_server_ends_the_visit_with_its_code(act: Act, code: int, words: str) -> None:
    async with hostile(act) as (address, closed):
        with pytest.raises(LocalError, match="the server broke the protocol: ") as caught:
            await play(address)
        assert words in str(caught.value)
        assert str(caught.value).isprintable()
    assert closed == [code]


@pytest.mark.parametrize("reason", ["", "7", "soon", "7 -1", "7 604801", "7 1e3", "x 1", "7 1 1", "\x1b[2J 5"])
async def test_rest_that_is_no_round_and_seconds_is_said_in_one_sentence(reason: str) -> None:
    async def rests(connection: ServerConnection) -> None:
        await connection.close(Close.RESTS, reason)

    async with hostile(rests) as (address, _):
        with pytest.raises(
            LocalError, match=r"^the server broke the protocol: a phone is to rest until '.*'"
        ) as caught:
            await play(address)
    assert "which is no round and seconds" in str(caught.value)
    assert str(caught.value).isprintable()


async def test_connection_that_ends_behind_its_welcome_leaves_no_keepalive_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def rests(connection: ServerConnection) -> None:
        await connection.close(Close.RESTS, "9 600")

    def slowly(draws: Any, layout: Any, seed: int) -> np.ndarray:
        time.sleep(0.2)  # the connection ends meanwhile
        return np.zeros(layout.size, np.float32)

    monkeypatch.setattr(visit, "drawn", slowly)
    tensors = len(LAYOUTS["tiny"].tensors)
    initial = {"initial": [[0, 0]] * tensors, "initial_digest": digest(bytes(WHOLE))}
    lines: list[str] = []
    async with hostile(rests, welcome=replace(WELCOME, **initial)) as (address, _):
        playing = asyncio.create_task(play(address, lines))
        while not any("not needed before round 9" in line for line in lines):
            await asyncio.sleep(0.01)
        left = [task for task in asyncio.all_tasks() if "Connection.keepalive" in repr(task)]
        playing.cancel()
    assert left == []


async def test_phone_that_finds_no_server_after_its_rest_takes_the_run_to_be_over() -> None:
    async def rests(connection: ServerConnection) -> None:
        await connection.close(Close.RESTS, "2 1")

    lines: list[str] = []
    async with hostile(rests) as (address, _):
        playing = asyncio.create_task(play(address, lines))
        while "not needed before round 2; back in 1 s" not in lines:
            await asyncio.sleep(0.01)
    end = await playing
    assert re.fullmatch(r"no server at .* since this phone's rest, so its run is taken to be over", end)


async def test_server_that_sends_a_phone_away_for_no_time_is_not_asked_again_at_once() -> None:
    times: list[float] = []

    async def rests(connection: ServerConnection) -> None:
        times.append(asyncio.get_running_loop().time())
        await connection.close(Close.RESTS, "2 0")

    async with hostile(rests) as (address, _):
        lines: list[str] = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(play(address, lines), 1.5)
    assert len(times) <= 2
    assert "not needed before round 2; back in 0 s" in lines


async def test_phone_plays_no_shard_that_cannot_be() -> None:
    async with hostile(sends(FINISH), welcome=replace(WELCOME, shard=2, shards=2)) as (
        address,
        closed,
    ):
        with pytest.raises(LocalError, match="shard 2 of 2; shards are counted from 0"):
            await play(address)
    assert closed == [4001]


async def upload_begins(connection: ServerConnection) -> UpdateBegin:
    """Have the phone train on zeros, return what it begins to send."""
    part = bytes(WHOLE // 4)
    await connection.send(task())
    await connection.send(pack(ModelBegin(0, NOTHING, "float32", [WHOLE], digest(bytes(WHOLE)), 0, part)))
    for offset in range(len(part), WHOLE, len(part)):
        await connection.send(pack(ModelChunk(offset, part)))
    frame = await connection.recv()
    assert isinstance(frame, bytes)
    begun = unpack(frame)
    assert isinstance(begun, UpdateBegin)
    return begun


async def test_more_bytes_than_an_update_has_cannot_be_acknowledged() -> None:
    async def act(connection: ServerConnection) -> None:
        begun = await upload_begins(connection)
        await connection.send(pack(Ack(1, begun.size + 1)))

    async with hostile(act) as (address, closed):
        with pytest.raises(LocalError, match=f"{WHOLE + 1} bytes acknowledged of an update of {WHOLE} bytes"):
            await play(address)
    assert closed == [4001]


async def test_download_that_this_phone_s_disk_spoilt_is_asked_for_anew(tmp_path: Path) -> None:
    """After a power cut, say: no fsync is spent on bytes that can be had again."""
    whole = np.zeros(WHOLE // 4, "<f4").tobytes()
    claimed: list[int] = []

    async def serve(connection: ServerConnection) -> None:
        said = unpack(await connection.recv(decode=False))
        assert isinstance(said, Hello)
        claimed.append(said.partial_bytes)
        await connection.send(pack(WELCOME))
        await connection.send(task())
        await connection.send(pack(ModelBegin(0, NOTHING, "float32", [WHOLE], digest(whole), said.partial_bytes, b"")))
        if said.partial_bytes:
            await connection.send(pack(ModelChunk(said.partial_bytes, whole[said.partial_bytes :])))
            await connection.wait_closed()
            return
        await connection.send(pack(ModelChunk(0, whole)))
        assert isinstance(unpack(await connection.recv(decode=False)), UpdateBegin)
        await connection.send(FINISH)
        await connection.wait_closed()

    phone_state = PhoneState(tmp_path)
    phone_state.enter("run", 0)
    phone_state.begin_download(digest(whole))
    phone_state.extend_download(0, b"spoilt" + whole[6:100])
    async with serve_websocket(serve, "127.0.0.1", 0, ping_interval=None) as server:
        lines: list[str] = []
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await play(address, lines, state_dir=tmp_path) == "done"
    assert claimed == [100, 0]
    assert any("does not have the digest that was announced; it is asked for anew" in line for line in lines)


async def test_phone_that_leaves_in_mid_download_waits_for_nothing_behind_it() -> None:
    """Whole messages that it never took stood before the server's goodbye, and it waited for that for ten seconds."""
    chunks = [pack(ModelChunk(offset, bytes(1024))) for offset in range(1024, 20 * 1024, 1024)]
    unknown = replace(WELCOME, problem="larger/model")
    began_s = asyncio.get_running_loop().time()
    async with hostile(sends(task(), begin([WHOLE], bytes(1024)), *chunks), welcome=unknown) as (address, closed):
        with pytest.raises(LocalError, match="the run's problem is 'larger/model', whose code does not travel"):
            await play(address, train=True)
    assert closed == [4010]
    assert asyncio.get_running_loop().time() - began_s < 9


# Rates


@pytest.mark.parametrize(
    "frame",
    [
        b"\x89\x00",
        b"\x8a\x00",
        b"\x82\x00",
        *(b"\x82" + bytes([len(packed)]) + packed for packed in (pack(Accepted(1)), pack(Cancel(1)), pack(Ack(1, 1)))),
        b"".join(b"\x82" + bytes([len(packed)]) + packed for packed in (task(), begin([8]))),
    ],
    ids=["pings", "pongs", "empty frames", "Accepted", "Cancel", "Ack", "Task and ModelBegin"],
)
async def test_flood_of_small_frames_costs_the_phone_no_memory(frame: bytes) -> None:
    # An empty frame is no message: that may be said before there is a flood.
    words = "more than 100 frames a second of less than 1024 bytes|frame of 0 bytes is not"
    lines: list[str] = []
    async with hostile(writes(frame * (1_000_000 // len(frame)), times=20)) as (address, _):
        tracemalloc.start()
        try:
            with pytest.raises(LocalError, match=words):
                await play(address, lines)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # What the server of this process wrote is in there: a megabyte at a time.
    assert peak < 8e6
    assert len(lines) <= SMALL_BURST + 2


async def test_flood_of_tasks_is_a_flood_of_small_frames() -> None:
    flood = sends(*(task(number, uplink="float32" + " " * 249) for number in range(1, 2000)))
    async with hostile(flood) as (address, closed):
        with pytest.raises(LocalError, match="more than 100 frames a second"):
            await play(address)
    assert closed == [4008]


async def test_every_chunk_may_be_acknowledged_however_fast() -> None:
    async def act(connection: ServerConnection) -> None:
        begun = await upload_begins(connection)
        chunks = 1
        received = len(begun.data)
        while received < begun.size:
            frame = await connection.recv()
            assert isinstance(frame, bytes)
            received += len(unpack(frame).data)  # type: ignore[union-attr]
            chunks += 1
        # At once, and beyond the burst: as many as there were messages, and what else may answer an update.
        for _ in range(SMALL_BURST + chunks):
            await connection.send(pack(Ack(1, received)))
        await connection.send(pack(Accepted(1)))
        await connection.send(FINISH)

    async with hostile(act) as (address, _):
        assert await play(address) == "done"


async def test_accepted_and_cancel_of_nothing_are_not_worth_a_word() -> None:
    lines: list[str] = []
    noise = [pack(kind(number)) for number in range(50) for kind in (Accepted, Cancel)]
    async with hostile(sends(*noise, FINISH)) as (address, _):
        assert await play(address, lines) == "done"
    assert [line for line in lines if "round" in line] == []


# Time


@pytest.mark.parametrize("heartbeat_s", [0.0, 1e-9, 1e9])
async def test_any_heartbeat_is_borne(heartbeat_s: float) -> None:
    async def act(connection: ServerConnection) -> None:
        await asyncio.sleep(0.2)
        await connection.send(FINISH)

    welcome = replace(WELCOME, heartbeat_s=heartbeat_s)
    async with hostile(act, welcome=welcome) as (address, _):
        assert await play(address) == "done"


async def test_server_that_means_to_ping_once_a_decade_is_still_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherfed.edge_client.visit.LONGEST_HEARTBEAT_S", 0.3)
    monkeypatch.setattr("featherfed.edge_client.dialing.PING_S", 0.2)
    came_back = asyncio.Event()
    visits: list[ServerConnection] = []

    async def fall_silent(connection: ServerConnection) -> None:
        visits.append(connection)
        if len(visits) > 1:
            came_back.set()
            await connection.send(FINISH)
            return
        connection.transport.pause_reading()
        await came_back.wait()
        connection.transport.resume_reading()

    welcome = replace(WELCOME, heartbeat_s=1e9)
    async with hostile(fall_silent, welcome=welcome) as (address, _):
        assert await asyncio.wait_for(play(address), WAIT_S / 2) == "done"


async def test_server_that_never_welcomes_is_left_and_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherfed.edge_client.visit.WELCOME_S", 0.1)

    async def ping(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.ping()
                await asyncio.sleep(0.02)

    async with hostile(ping, welcome=None) as (address, closed):
        with pytest.raises(LocalError, match=r"no server at .* \(no Welcome within 0.1 seconds\)"):
            await play(address)
    assert set(closed) == {4001}
