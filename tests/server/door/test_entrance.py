"""TLS, and what an open network must not get."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import trustme
from websockets.asyncio.client import connect

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import ConfigError, LocalError
from featherfed.server.door import tokens
from featherfed.server.door.doorkeeper import network
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.server.door.entrance_flags import entrance_flags
from featherfed.wire.chunking import LEAST_BYTES
from featherfed.wire.messages import Accepted, UpdateBegin, UpdateChunk
from tests.server.peer import CountedClient, Peer, digest

Serve = Callable[..., Any]


def tls(authority: dict[str, Path]) -> dict[str, Any]:
    return {"tls_cert": authority["cert"], "tls_key": authority["key"]}


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--port", "9000", "--insecure"],
        ["--host", "::1", "--tls-cert", "CERT", "--tls-key", "KEY", "--tokens", "my tokens.json"],
        ["--max-connections", "7", "--max-per-address", "3", "--max-handshakes", "2"],
    ],
)
def test_an_entrance_says_the_flags_that_open_it_again(given: list[str], authority: dict[str, Path]) -> None:
    files = {"CERT": str(authority["cert"]), "KEY": str(authority["key"])}
    given = [files.get(word, word) for word in given]
    opened: list[EntranceOptions] = []

    @click.command()
    @entrance_flags
    def serve(entrance: dict[str, Any]) -> None:
        opened.append(EntranceOptions(**entrance))

    serve.main(given, standalone_mode=False)
    assert opened[0].flags() == given


@pytest.mark.parametrize("link", [None, "20mbps"])
async def test_a_round_over_tls_with_a_token(
    serve: Serve, authority: dict[str, Path], tmp_path: Path, link: str | None
) -> None:
    token = tokens.add(tmp_path / "tokens.json", "alice")
    async with serve(phones=1, entrance=tls(authority)) as served:
        assert served.address.startswith("wss://127.0.0.1:")
        profile = profile_from_flags(bandwidth=link) if link else None
        options = PhoneOptions(
            server=served.address, name="alice", token=token, ca=str(authority["ca"]), train=False, profile=profile
        )
        options.check()
        assert await play_phone(options, lambda line: None) == "all 1 rounds are done"
        assert await served.ended is None
        (row,) = served.report()["rounds"]
    assert row["accepted"] == 1


async def test_a_phone_trusts_no_certificate_that_its_authority_did_not_sign(
    serve: Serve, authority: dict[str, Path], tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with serve(phones=1, entrance=tls(authority)) as served:
        options = PhoneOptions(
            server=served.address, name="alice", ca=str(tmp_path / "other.pem"), train=False, patience_s=0.2
        )
        with pytest.raises(LocalError, match="certificate verify failed"):
            await play_phone(options, lambda line: None)


async def test_chunks_as_small_as_a_breaking_link_makes_them_are_welcome_within_tls(
    serve: Serve, authority: dict[str, Path]
) -> None:
    async with serve(phones=1, problem="digits/2nn", entrance=tls(authority), disk={"durable": False}) as served:
        trusting = ssl.create_default_context(cafile=authority["ca"])
        async with connect(
            served.address, ssl=trusting, compression=None, proxy=None, create_connection=CountedClient
        ) as connection:
            assert isinstance(connection, CountedClient)
            phone = Peer(connection)
            await phone.join("alice")
            payload = phone.update(await phone.task())
            await phone.send(UpdateBegin(1, len(payload), digest(payload), 1, 0, b""))
            for offset in range(0, len(payload), LEAST_BYTES):
                await phone.send(UpdateChunk(offset, payload[offset : offset + LEAST_BYTES]))
            assert await phone.receive_until(Accepted) == Accepted(1)
        assert served.watcher.told("fault") == []
        assert await served.ended is None


async def test_silence_in_the_middle_of_tls_makes_room_and_holds_nothing_up(
    serve: Serve, authority: dict[str, Path]
) -> None:
    async with serve(phones=1, entrance={**tls(authority), "max_handshakes": 2}) as served:
        host, port = served.address.removeprefix("wss://").split(":")
        silent = [await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0)) for _ in range(5)]
        for reader, _ in silent[2:]:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        options = PhoneOptions(server=served.address, name="alice", ca=str(authority["ca"]), train=False)
        assert await play_phone(options, lambda line: None) == "all 1 rounds are done"
        assert await asyncio.wait_for(silent[0][0].read(), 5) == b""
        # The run ends although strangers still say nothing.
        assert await asyncio.wait_for(served.ended, 5) is None
        for _, writer in silent:
            writer.close()


def opened(runs: Path, **options: Any) -> Entrance:
    return Entrance(EntranceOptions(**{"host": "127.0.0.1", "port": 0, **options}), runs, 10)


def test_beyond_this_machine_nobody_comes_in_without_a_token(tmp_path: Path, authority: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"would let anybody in; .* fl-server token add NAME --tokens .*tokens\.json"):
        opened(tmp_path, host="0.0.0.0", insecure=True, **tls(authority))
    tokens.add(tmp_path / "tokens.json", "alice")
    with pytest.raises(ConfigError, match=r"without TLS would show tokens and models to the network; .* --insecure"):
        opened(tmp_path, host="0.0.0.0")
    with opened(tmp_path, host="0.0.0.0", insecure=True), opened(tmp_path, host="0.0.0.0", **tls(authority)):
        pass


def test_a_file_of_tokens_that_is_not_there_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are no tokens in .*x\.json; fl-server token add NAME"):
        opened(tmp_path, tokens=tmp_path / "x.json")


def test_an_empty_file_of_tokens_lets_nobody_in(tmp_path: Path) -> None:
    tokens.add(tmp_path / "tokens.json", "alice")
    tokens.revoke(tmp_path / "tokens.json", "alice")
    with opened(tmp_path) as entrance:
        assert "process_request" in entrance.serve_arguments(lambda code, sentence: None)


def test_half_of_tls_or_broken_tls_is_refused(tmp_path: Path, authority: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="needs both --tls-cert and --tls-key"):
        opened(tmp_path, tls_cert=authority["cert"])
    with pytest.raises(ConfigError, match="does not belong to the certificate"):
        opened(tmp_path, tls_cert=authority["ca"], tls_key=authority["key"])


def test_more_connections_than_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherfed.server.door.entrance.resource.getrlimit", lambda _: (256, 1024))
    with pytest.raises(ConfigError, match=r"1000 connections .* need 1128 open files, and the system allows 1024"):
        opened(tmp_path, max_connections=1000)


def test_old_tls_is_not_spoken(tmp_path: Path, authority: dict[str, Path]) -> None:
    with opened(tmp_path, **tls(authority)) as entrance:
        assert entrance.tls is not None
        assert entrance.tls.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_one_peer_of_ipv6_is_a_network_of_64_bits() -> None:
    assert network("2001:db8:0:1:aaaa::1") == network("2001:db8:0:1:bbbb::2") != network("2001:db8:0:2::1")
    assert network("::ffff:192.0.2.7") == network("192.0.2.7")


def test_a_taken_port_is_told_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="choose another --port"):
            opened(tmp_path, port=taken.getsockname()[1])


async def test_what_the_server_says_does_not_wait_for_an_acknowledgement(tmp_path: Path) -> None:
    loop, met = asyncio.get_running_loop(), asyncio.Event()
    nodelay: list[int] = []

    class Look(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            nodelay.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            met.set()

    # With Nagle's algorithm, a message waits until the one before is acknowledged: up to 40 ms in each round.
    with opened(tmp_path) as entrance, socket.socket() as phone:
        async with await loop.create_server(Look, sock=entrance.socket):
            phone.setblocking(False)
            await loop.sock_connect(phone, entrance.socket.getsockname())
            async with asyncio.timeout(10):
                await met.wait()
    assert nodelay == [1]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_who_knocks_while_the_run_ends_leaves_no_socket_behind(
    serve: Serve, authority: dict[str, Path], secure: bool
) -> None:
    """pytest makes an error of a transport that is collected and was not closed."""
    async with serve(phones=1, entrance=tls(authority) if secure else {}) as served:
        port = urlsplit(served.address).port
        served.service.stop()
        # They wait in the kernel: the loop accepts them in the turns in which the server closes.
        knocking = []
        for turn in range(6):
            for _ in range(3):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
                knocking.append(sock)
            if not turn:
                sock.send(b"GET / HTTP/1.1\r\n")
            await asyncio.sleep(0)
        assert isinstance(await asyncio.wait_for(served.ended, 10), str)
        assert not asyncio.all_tasks() - {asyncio.current_task()}
        for sock in knocking:
            sock.close()
    gc.collect()
