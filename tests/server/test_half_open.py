"""Connections whose other end is gone without a word, also in the middle of a transfer."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.bandwidth_sim.relay import LinkedDialer
from featherfed.edge_client.one_phone import PhoneOptions, play_phone

from .peer import CountedClient, Peer

Serve = Callable[..., Any]
HEARTBEAT_S = 0.4


async def test_phone_that_goes_silent_in_the_middle_of_its_download_is_found(serve: Serve) -> None:
    """The server's buffers are full, so no ping leaves it: only that nothing moves tells."""
    async with serve(phones=1, problem="digits/cnn", heartbeat=HEARTBEAT_S) as served:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", urlsplit(served.address).port))
        connection = await connect(
            served.address, sock=sock, compression=None, proxy=None, ping_interval=None, max_queue=1,
            create_connection=CountedClient,
        )  # fmt: skip
        assert isinstance(connection, CountedClient)
        await Peer(connection).join("silent")
        began_s = asyncio.get_running_loop().time()
        # From here on it reads nothing.
        async with asyncio.timeout(30):
            while not served.watcher.told("phone_left"):
                await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began_s >= HEARTBEAT_S
        connection.transport.abort()


async def test_link_that_stalls_is_left_by_both_ends_and_the_run_ends(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinkedDialer, "keepalive", lambda self, message_bytes=0: (HEARTBEAT_S, HEARTBEAT_S))
    link = profile_from_flags(bandwidth="4mbps", drop_every="90kB", drop_how="stall")
    async with serve(phones=1, rounds=1, heartbeat=HEARTBEAT_S, downlink="rotate | eden(4)") as served:
        phone = PhoneOptions(server=served.address, train=False, name="stalled", profile=link)
        assert await asyncio.wait_for(play_phone(phone, lambda line: None), 60) == "all 1 rounds are done"
        assert await served.ended is None
        total = served.service.ledger.total("uplink")
        assert len(served.watcher.told("phone_left")) >= 2
        assert total.payload - total.resent - total.wasted == 4 * served.aggregator.parameters
