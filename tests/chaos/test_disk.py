"""The disk: full, locked, torn. A clear sentence, and a run that goes on."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import LocalError
from featherfed.server.storage.store import Store, put_chunk, put_value

Serve = Callable[..., Any]
WAIT_S = 60.0


def phone(address: str, name: str, tmp_path: Path) -> asyncio.Task[str]:
    options = PhoneOptions(server=address, train=False, name=name, state_dir=str(tmp_path / name))
    return asyncio.create_task(play_phone(options, lambda line: None))


def test_full_disk_is_one_sentence_and_the_store_keeps_what_it_had(tmp_path: Path) -> None:
    """A process whose files may not grow: the nearest to a full disk that needs no root."""
    program = """
import resource, signal, sys
from pathlib import Path
from featherfed.errors import LocalError
from featherfed.server.storage.store import Store, put_chunk, put_value
store = Store(Path(sys.argv[1]))
store.apply([put_value("kept", "1")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(100):
        store.apply([put_chunk(1, 0, number * 65536, bytes(65536))])
except LocalError as error:
    print(error)
    sys.exit(3)
"""
    path = tmp_path / "run.sqlite"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=WAIT_S)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout.startswith(f"cannot write {path}: ")
    store = Store(path)
    assert store.values() == {"kept": "1"}
    durable = store.payload(1, 0)
    assert len(durable) % 65536 == 0
    store.apply([put_chunk(1, 0, len(durable), b"and on")])
    assert store.payload(1, 0).endswith(b"and on")
    store.close()


async def test_run_whose_disk_fails_says_so_and_goes_on_later(serve: Serve, tmp_path: Path) -> None:
    calls = 0

    def full(moment: str) -> None:
        nonlocal calls
        calls += moment == "inside"
        if calls > 6:
            raise LocalError("cannot write run.sqlite: database or disk is full")

    phones: list[asyncio.Task[str]] = []
    async with serve(phones=2, rounds=3, disk={"injector": full}) as served:
        port = int(served.address.rpartition(":")[2])
        phones = [phone(served.address, name, tmp_path) for name in ("a", "b")]
        with pytest.raises(LocalError, match="disk is full"):
            await asyncio.wait_for(served.ended, WAIT_S)
    async with serve(resume=True, port=port) as served:
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        assert [row["accepted"] for row in served.report()["rounds"]] == [2, 2, 2]
    assert await asyncio.wait_for(asyncio.gather(*phones), WAIT_S) == ["all 3 rounds are done"] * 2


def test_locked_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    store = Store(path, busy_s=0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LocalError, match=r"cannot write .*run\.sqlite: .*database is locked"):
        store.apply([put_value("key", "value")])
    other.execute("ROLLBACK")
    store.apply([put_value("key", "value")])
    assert store.values() == {"key": "value"}
    other.close()
    store.close()


def test_torn_last_write_leaves_a_prefix_of_what_was_written(tmp_path: Path) -> None:
    """The log cut at any place: some transactions from the first on are there whole, and the store takes more."""
    living = tmp_path / "living"
    living.mkdir()
    store = Store(living / "run.sqlite")
    for number in range(5):
        store.apply([put_chunk(1, 0, number * 3000, bytes([number]) * 3000), put_value("last", str(number))])
    log = living / "run.sqlite-wal"
    size = log.stat().st_size
    seen = set()
    for cut in [*range(0, size, 4099), size - 1]:
        torn = tmp_path / f"torn-{cut}"
        torn.mkdir()
        shutil.copy(living / "run.sqlite", torn)
        (torn / "run.sqlite-wal").write_bytes(log.read_bytes()[: size - cut])
        try:
            left = Store(torn / "run.sqlite")
        except LocalError:
            pytest.fail(f"cut by {cut} bytes, the store does not open")
        last = left.values().get("last")
        kept = 0 if last is None else int(last) + 1
        assert left.payload(1, 0) == b"".join(bytes([number]) * 3000 for number in range(kept))
        left.apply([put_value("more", "1")])
        left.close()
        seen.add(kept)
    store.close()
    assert {0, 1, 2, 3, 4, 5} <= seen
