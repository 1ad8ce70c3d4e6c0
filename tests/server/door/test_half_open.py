"""Connections whose other end is gone without a word, also in the middle of a transfer."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.bandwidth_sim.relay import LinkedDialer
from featherfed.bandwidth_sim.virtual import VirtualDialer, run
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.server.config import config_from
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.rounds.resume_point import begin
from featherfed.server.service import Service
from featherfed.server.storage.run_folder import create
from featherfed.server.storage.store import Store
from tests.server.peer import CountedClient, Peer
from tests.serving import Recorder

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


@pytest.mark.parametrize("bandwidth", ["2mbps", "100mbps"])
@pytest.mark.parametrize("after", ["5kB", "30kB", "100kB", "150kB", "200kB", "50s"])
def test_silence_is_found_by_both_ends_within_two_heartbeats(tmp_path: Path, after: str, bandwidth: str) -> None:
    """On the virtual clock; the link falls silent in a download, an upload, or where only pings move."""
    heartbeat_s = 20.0
    link = profile_from_flags(bandwidth=bandwidth, drop_every=after, drop_how="stall")
    config = config_from(
        {
            "problem": "digits", "phones": 2 if after.endswith("s") else 1, "cohort": 1, "rounds": 2,
            "heartbeat": heartbeat_s, "uplink": "float32", "downlink": "float32",
        }
    )  # fmt: skip
    folder = create(tmp_path, "run", config)
    aggregator, store = Aggregator(config, None), Store(folder.database, durable=False)
    at_s: dict[str, float] = {}

    def note(t_s: float, connection: int, event: str, num_bytes: int) -> None:
        if connection == 1:
            at_s.setdefault(event, t_s)

    async def main() -> None:
        watcher = Recorder()
        start = begin(config, store, aggregator)
        service = Service(config, folder, aggregator, store, start, watcher)  # type: ignore[arg-type]
        serving = asyncio.create_task(service.run(host="server", port=80))
        options = PhoneOptions(server="ws://server:80", train=False, name="p", profile=link)
        playing = asyncio.create_task(play_phone(options, lambda line: None, linked=VirtualDialer))
        # Closed is what both of its ends have left.
        while "closed" not in at_s:
            await asyncio.sleep(0.1)
        playing.cancel()
        service.stop()
        await asyncio.gather(serving, playing, return_exceptions=True)

    run(main(), log=note)
    store.close()
    # What was already handed to the link still leaves for nowhere.
    assert at_s["closed"] - at_s["drop-stall"] <= 2 * heartbeat_s + link.answer_s()
