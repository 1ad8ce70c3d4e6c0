"""What happens on one peer's connection ends that connection and nothing else (featherfed/wire/edge.py).

Every run here plays over real sockets, with models that no socket's buffer holds, and is broken at chosen bytes.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect

from featherfed.edge_client import backoff
from featherfed.edge_client.dialing import DirectDialer
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import LocalError
from featherfed.wire.messages import Welcome
from tests.cutting import LINGER_NOT, Cut, Cutter, cutting
from tests.server.peer import CountedClient, Peer, hello, peer

Serve = Callable[..., Any]
WAIT_S = 60.0
HASTY = {"durable": False}
"""A store that waits for no disk."""
HEARTBEAT_S = 0.4
EARLY, MIDDLE, LATE = 40, 150_000, 400_000
"""Bytes of a connection: within the HTTP upgrade, and twice within `2nn` as float32 (800 kB)."""
CUTS = [
    Cut("down", MIDDLE, "rst"), Cut("down", LATE, "fin"), Cut("up", EARLY, "rst"), Cut("up", MIDDLE, "rst"),
    Cut("down", EARLY, "fin"), Cut("up", MIDDLE + 1, "fin"), Cut("up", LATE, "rst"), Cut("down", MIDDLE + 7, "rst"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back at once."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.1)


@pytest.fixture(autouse=True)
def silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither asyncio nor the library has anything to report of a connection that ends."""
    caplog.set_level(logging.WARNING)
    yield
    assert not caplog.get_records("call"), caplog.text


def port_of(served: Any) -> int:
    port = urlsplit(served.address).port
    assert port is not None
    return port


async def play_through(cutter: Cutter, served: Any, *, phones: int = 2, **options: Any) -> None:
    """Play whole phones through the cutter to the end of the run."""
    scheme = urlsplit(served.address).scheme
    settings = {"server": f"{scheme}://127.0.0.1:{cutter.port}", "train": False, **options}
    playing = [play_phone(PhoneOptions(name=f"p{number}", **settings), lambda line: None) for number in range(phones)]
    ends = await asyncio.wait_for(asyncio.gather(*playing), WAIT_S)
    assert len(set(ends)) == 1 and ends[0].endswith("rounds are done")
    assert await asyncio.wait_for(served.ended, WAIT_S) is None


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_connections_cut_anywhere_end_alone_and_the_run_goes_on(
    serve: Serve, authority: dict[str, Path], mode: str, secure: bool
) -> None:
    tls = {"tls_cert": authority["cert"], "tls_key": authority["key"]} if secure else {}
    more = {"mode": "async", "buffer": 2} if mode == "async" else {}
    async with serve(problem="digits/2nn", phones=2, rounds=2, entrance=tls, disk=HASTY, **more) as served:
        async with cutting(port_of(served), CUTS) as cutter:
            await play_through(cutter, served, ca=str(authority["ca"]) if secure else None)
        total = served.service.ledger.total("uplink")
        counted = sum(row["accepted"] for row in served.report()["rounds"])
        assert total.payload - total.resent - total.wasted == counted * 4 * served.aggregator.parameters
        assert {cut.way for cut in cutter.made} == {"up", "down"}


async def test_silence_in_both_directions_is_left_and_the_run_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectDialer, "keepalive", lambda self: (HEARTBEAT_S, HEARTBEAT_S))
    cuts = [Cut("down", MIDDLE, "silence"), Cut("up", MIDDLE, "silence"), Cut("up", LATE, "silence")]
    async with (
        serve(problem="digits/2nn", phones=1, rounds=2, heartbeat=HEARTBEAT_S) as served,
        cutting(port_of(served), cuts) as cutter,
    ):
        await play_through(cutter, served, phones=1)
    assert cutter.made == cuts


@pytest.mark.parametrize("read_bytes", [0, 100_000, 1_000_000])
async def test_phone_that_is_reset_while_the_server_waits_for_its_socket_ends_alone(
    serve: Serve, read_bytes: int
) -> None:
    """The server's send waits for a full buffer: that is where the raw error came out."""
    async with serve(problem="digits/cnn", phones=2, rounds=1, run_id="ab12") as served:
        playing = [asyncio.create_task(play_phone(whole(served, "other"), lambda line: None))]
        for number in range(3):
            connection = await slow_client(served)
            phone = Peer(connection)
            # Of this run, and holding nothing: it gets the whole model.
            await phone.send(replace(hello("breaks"), run="ab12"))
            welcome = await phone.receive()
            assert isinstance(welcome, Welcome)
            while connection.bytes_received < read_bytes:
                await phone.receive()
            held = served.service.fleet.connections[welcome.shard].websocket
            # From here on it reads nothing, until the server can send no more.
            while not held.paused:
                await asyncio.sleep(0.005)
            reset_now(connection)
            while len(served.watcher.told("phone_left")) <= number:
                await asyncio.sleep(0.005)
            assert not served.ended.done()
        playing.append(asyncio.create_task(play_phone(whole(served, "breaks"), lambda line: None)))
        assert await asyncio.wait_for(asyncio.gather(*playing), WAIT_S) == ["all 1 rounds are done"] * 2
        assert await served.ended is None


@pytest.mark.processes
async def test_phone_killed_in_the_middle_of_its_download_ends_alone(serve: Serve) -> None:
    async with serve(problem="digits/2nn", phones=2, rounds=2) as served:
        other = asyncio.create_task(play_phone(whole(served, "other"), lambda line: None))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "featherfed.edge_client.cli", "run", "--train", "none", "--name", "killed", "--quiet",
            "--bandwidth", "2mbps", "--server", served.address,
        )  # fmt: skip
        while sum(served.service.ledger.total("downlink", shard=shard).payload > 0 for shard in range(2)) < 2:
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        while not served.watcher.told("phone_left"):
            await asyncio.sleep(0.005)
        assert served.watcher.told("phone_left")[0][1] == "killed" and not served.ended.done()
        again = asyncio.create_task(play_phone(whole(served, "killed"), lambda line: None))
        assert await asyncio.wait_for(asyncio.gather(other, again), WAIT_S) == ["all 2 rounds are done"] * 2
        assert await served.ended is None


async def test_messages_that_this_server_fails_on_end_their_connection_and_not_the_run(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(phones=1) as served, peer(served.address) as first:
        await first.join("p")
        task = await first.task()
        with monkeypatch.context() as broken:
            broken.setattr(type(served.service._receiver), "begin", fails)
            await first.upload(1, first.update(task), upto=1000)
            code, sentence = await first.closed()
        assert code == 4000 and "the server failed on a message of it: KeyError: 'unforeseen'" in sentence
        assert not served.ended.done()


async def test_bug_in_the_fold_ends_the_run_in_a_sentence(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(phones=1) as served, peer(served.address) as phone:
        await phone.join("p")
        task = await phone.task()
        monkeypatch.setattr(served.aggregator.sum, "add_all", fails)
        await phone.upload(1, phone.update(task))
        assert (await phone.closed())[0] == 1001
        with pytest.raises(LocalError, match=r"^KeyError: 'unforeseen' \(.*test_broken_connections\.py, line \d+\)$"):
            await served.ended


def fails(*_: object) -> None:
    """Fail as no one foresaw."""
    raise KeyError("unforeseen")


def whole(served: Any, name: str) -> PhoneOptions:
    return PhoneOptions(server=served.address, train=False, name=name)


async def slow_client(served: Any) -> CountedClient:
    """Return a connection whose kernel takes little that is not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port_of(served)))
    connection = await connect(
        served.address, sock=sock, compression=None, proxy=None, ping_interval=None, max_queue=1,
        create_connection=CountedClient,
    )  # fmt: skip
    assert isinstance(connection, CountedClient)
    return connection


def reset_now(connection: CountedClient) -> None:
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    connection.transport.abort()
