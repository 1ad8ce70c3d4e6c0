"""Every phone is told that the run is over, also one whose connection broke just before."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from featherfed.server.rounds import farewell
from featherfed.wire.messages import Accepted, Finish
from tests.server.peer import Peer, peer
from tests.server.rounds.waiting import WAIT_S, until

Serve = Callable[..., Any]
OVER = Finish("all 1 rounds are done")


async def both_join(first: Peer, second: Peer) -> None:
    await first.join("first")
    await second.join("second")


async def upload(phone: Peer) -> None:
    await phone.upload(1, phone.update(await phone.task()))
    assert await phone.receive_until(Accepted) == Accepted(1)


async def back(served: Any, name: str) -> None:
    """Come back, and be told."""
    async with peer(served.address) as again:
        await again.join(name)
        assert await again.receive_until(Finish) == OVER
        assert await again.closed() == (1000, "")


async def broken_off(served: Any, first: Peer, second: Peer) -> None:
    """Have the connection of the first broken after its update, and the run's end told to the second."""
    await both_join(first, second)
    await upload(first)
    first.connection.transport.abort()
    await until(lambda: len(served.service.fleet.connections) == 1)
    await upload(second)
    assert await second.receive_until(Finish) == OVER
    assert await second.closed() == (1000, "")


async def test_phone_whose_connection_broke_before_the_end_is_told_when_it_is_back(serve: Serve) -> None:
    async with serve(heartbeat=600.0) as served, peer(served.address) as first, peer(served.address) as second:
        await broken_off(served, first, second)
        await back(served, "first")
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        report = served.report()
    assert [row["accepted"] for row in report["rounds"]] == [2]


async def test_phone_that_hears_nothing_more_on_its_connection_is_told_on_its_next_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "GOODBYE_S", 0.5)
    async with serve(heartbeat=600.0) as served, peer(served.address) as first, peer(served.address) as second:
        await both_join(first, second)
        await upload(first)
        first.connection.transport.pause_reading()
        await upload(second)
        assert await second.receive_until(Finish) == OVER
        await until(lambda: not served.service.fleet.connections)
        await back(served, "first")
        assert await asyncio.wait_for(served.ended, WAIT_S) is None


async def test_who_took_leave_is_not_waited_for(serve: Serve) -> None:
    async with serve(heartbeat=600.0) as served, peer(served.address) as second:
        async with peer(served.address) as first:
            await both_join(first, second)
            await upload(first)
        await upload(second)
        assert await second.receive_until(Finish) == OVER
        assert await asyncio.wait_for(served.ended, WAIT_S) is None


async def test_who_does_not_come_back_is_waited_for_no_longer_than_a_round_would(serve: Serve) -> None:
    async with serve(heartbeat=0.5) as served, peer(served.address) as first, peer(served.address) as second:
        await broken_off(served, first, second)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None


async def test_ctrl_c_ends_the_wait_and_what_it_waits_for_is_said(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "SAY_S", 0.05)
    async with serve(heartbeat=20.0) as served, peer(served.address) as first, peer(served.address) as second:
        await broken_off(served, first, second)
        await until(lambda: served.watcher.told("note"))
        ((sentence,),) = served.watcher.told("note")
        assert sentence.startswith("the rounds are done; the server stays up to ")
        assert sentence.endswith(" s to tell 1 phone that may not know: Ctrl-C ends it now")
        assert not served.ended.done()
        served.service.stop()
        # Its rounds are done all the same: it does not pause.
        assert await asyncio.wait_for(served.ended, WAIT_S) is None


async def test_server_that_was_killed_before_all_were_told_tells_them_when_it_is_resumed(serve: Serve) -> None:
    async with serve(heartbeat=600.0) as served, peer(served.address) as first, peer(served.address) as second:
        await broken_off(served, first, second)
        served.ended.cancel()
        await asyncio.wait({served.ended})
    async with serve(resume=True) as served:
        await back(served, "second")
        assert not served.ended.done()
        await back(served, "first")
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
    # All know now: there is nobody to wait for.
    async with serve(resume=True) as served:
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        settings = served.folder.path / "config.toml"
    # Of a round that was added nobody knows.
    settings.write_text(settings.read_text().replace("rounds = 1\n", "rounds = 2\n"))
    async with serve(resume=True) as served, peer(served.address) as first, peer(served.address) as second:
        await both_join(first, second)
        for phone in (first, second):
            await phone.upload(2, phone.update(await phone.task()))
            if phone is first:
                assert await phone.receive_until(Accepted) == Accepted(2)
                phone.connection.transport.abort()
                await until(lambda: len(served.service.fleet.connections) == 1)
        assert await second.receive_until(Finish) == Finish("all 2 rounds are done")
        async with peer(served.address) as again:
            await again.join("first")
            assert await again.receive_until(Finish) == Finish("all 2 rounds are done")
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
