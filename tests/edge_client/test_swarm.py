import asyncio
import os
import resource
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from featherfed.bandwidth_sim.profile import find_profile
from featherfed.edge_client import swarm
from featherfed.edge_client.one_phone import PhoneOptions
from featherfed.edge_client.swarm import Deal, _Worker, allow_files, phone_options, workers_for
from featherfed.edge_client.training_queue import TrainingQueue
from featherfed.edge_client.training_work import in_a_thread
from featherfed.errors import ConfigError
from featherfed.wire.messages import Accepted, Finish, ModelBegin, ModelChunk, pack
from tests.commandline.commands import run
from tests.layouts import task, weights_of, welcome

OPTIONS = PhoneOptions(server="ws://127.0.0.1:8765", name="swarm", state_dir="/tmp/state")


def test_every_phone_has_a_name_and_a_folder_of_its_own() -> None:
    phones = phone_options(OPTIONS, 5)
    assert [phone.name for phone in phones] == [f"swarm-{number}" for number in range(5)]
    assert len({phone.state_dir for phone in phones}) == 5
    assert all(phone.server == OPTIONS.server and phone.profile is None for phone in phones)


def test_links_are_dealt_in_turn() -> None:
    profiles = [find_profile(name) for name in ("2g", "3g")]
    dealt = [phone.profile.name for phone in phone_options(OPTIONS, 5, Deal(profiles=profiles)) if phone.profile]
    assert dealt == ["2g", "3g", "2g", "3g", "2g"]


def test_devices_are_dealt_in_turn_and_one_is_for_all() -> None:
    phones = phone_options(OPTIONS, 3, Deal(devices=[("cpu", 0.2), ("cpu", 0.05)]))
    assert [phone.step_s for phone in phones] == [0.2, 0.05, 0.2]
    alike = phone_options(replace(OPTIONS, step_s=0.01), 2)
    assert [phone.step_s for phone in alike] == [0.01, 0.01]


def test_phones_that_all_train_on_a_gpu_are_one_process_as_they_train_as_one_batch() -> None:
    gpu, cpu = [("cuda", 0.0)], [("cpu", 0.0)]
    assert workers_for(phone_options(OPTIONS, 5, Deal(devices=gpu))) == 1
    assert workers_for(phone_options(OPTIONS, 2_000, Deal(devices=[*gpu, *cpu]))) == os.cpu_count()
    assert workers_for(phone_options(OPTIONS, 1)) == 1


async def test_phones_on_a_gpu_wait_for_one_queue_and_others_have_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    trains: dict[str, Any] = {}

    async def play(options: PhoneOptions, *given: Any, **how: Any) -> str:
        trains[options.name] = how["trains"]
        return "done"

    monkeypatch.setattr(swarm, "play_phone", play)
    phones = phone_options(OPTIONS, 4, Deal(devices=[("cuda", 0.0), ("cpu", 0.2)]))
    assert await _Worker(quiet=True).play_all(phones) == ["done"] * 4
    assert isinstance(trains["swarm-0"], TrainingQueue) and trains["swarm-2"] is trains["swarm-0"]
    assert trains["swarm-1"] is trains["swarm-3"] is in_a_thread


def test_phones_without_a_folder_share_none() -> None:
    phones = phone_options(PhoneOptions(server="ws://x"), 2)
    assert [(phone.name, phone.state_dir) for phone in phones] == [("swarm-0", None), ("swarm-1", None)]


def test_shards_are_counted_on_from_the_first() -> None:
    phones = phone_options(PhoneOptions(server="ws://x", others=("ws://y",)), 3)
    assert [(phone.server, phone.others) for phone in phones] == [
        ("ws://x", ("ws://y",)), ("ws://y", ("ws://x",)), ("ws://x", ("ws://y",)),
    ]  # fmt: skip
    phones = phone_options(PhoneOptions(server="ws://x", shard=(3, 10)), 4)
    assert [phone.shard for phone in phones] == [(3, 10), (4, 10), (5, 10), (6, 10)]
    with pytest.raises(ConfigError, match="leaves no shard for swarm-7; choose --count 7"):
        phone_options(PhoneOptions(server="ws://x", shard=(3, 10)), 8)


def test_every_phone_gets_its_own_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("swarm-0 abc.def\n\nswarm-1 ghi.jkl\n")
    phones = phone_options(PhoneOptions(server="ws://x"), 2, Deal(tokens=file))
    assert [phone.token for phone in phones] == ["abc.def", "ghi.jkl"]
    with pytest.raises(ConfigError, match="no token for swarm-2"):
        phone_options(PhoneOptions(server="ws://x"), 3, Deal(tokens=file))
    file.write_text("alone\n")
    with pytest.raises(ConfigError, match="line 1: 'alone' is not NAME TOKEN"):
        phone_options(PhoneOptions(server="ws://x"), 1, Deal(tokens=file))


def test_more_phones_than_files_may_be_open_are_refused_with_the_number_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: raised.append(limits))
    direct = PhoneOptions(server="ws://x")
    allow_files([direct] * 100, 2)
    assert raised == []
    allow_files([direct] * 1000, 2)
    assert raised == [(1128, 4096)]
    linked = PhoneOptions(server="ws://x", profile=find_profile("3g"))
    with pytest.raises(ConfigError, match=r"needs 10128 open files a worker.*allows 4096; .*--count 1984 at the most"):
        allow_files([linked] * 5000, 2)
    allow_files([linked] * 1984, 2)


def test_phones_that_fail_are_named_whatever_worker_they_are_in() -> None:
    done = run("edge", "swarm", "--count", "3", "--workers", "2", "--train", "none", "--patience", "1s",
               "--server", "ws://127.0.0.1:1")  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "failed" in line]
    assert done.returncode == 1
    assert sorted(line.split(" failed: ")[0] for line in said) == ["swarm-0 and 1 more of its worker", "swarm-1"]


async def _bytes_of_a_round(*command: str) -> bytes:
    """Return all that `fl-edge` writes to its socket in a round of its own, unmasked, from the HTTP request on."""
    frames: list[bytes] = []
    done = asyncio.Event()

    async def play(connection: ServerConnection) -> None:
        assert connection.request is not None
        lines = sorted(f"{name}: {value}" for name, value in connection.request.headers.raw_items())
        # The port and the handshake's key are of the connection, not of the phone.
        frames.extend(line.encode() for line in lines if not line.startswith(("Host", "Sec-WebSocket-Key")))
        frames.append(await connection.recv(decode=False))
        await connection.send(pack(welcome("r", shard=2, shards=3, seed=7, chunk_bytes=65536)))
        await connection.send(pack(task(1, "rotate | eden(1)")))
        weights = weights_of(seed=7).tobytes()
        digest = sha256(weights).digest()[:8]
        chunk = 65536
        await connection.send(pack(ModelBegin(0, -1, "float32", [len(weights)], digest, 0, weights[:chunk])))
        for offset in range(chunk, len(weights), chunk):
            await connection.send(pack(ModelChunk(offset, weights[offset : offset + chunk])))
        frames.append(await connection.recv(decode=False))
        await connection.send(pack(Accepted(1)))
        await connection.send(pack(Finish("all 1 rounds are done")))
        await connection.wait_closed()
        done.set()

    async with serve_websocket(play, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "featherfed.edge_client.cli", *command, "--server", f"ws://127.0.0.1:{port}"
        )
        assert await asyncio.wait_for(process.wait(), 120) == 0
        await done.wait()
    return b"\n".join(frames)


@pytest.mark.processes
async def test_phone_of_a_swarm_sends_the_bytes_of_a_phone_alone() -> None:
    alone = await _bytes_of_a_round("run", "--name", "swarm-0")
    of_swarm = await _bytes_of_a_round("swarm", "--count", "1", "--name", "swarm")
    assert len(alone) > 3666
    assert alone == of_swarm
