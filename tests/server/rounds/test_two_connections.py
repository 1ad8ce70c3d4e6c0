"""A phone that is back while the server still reads, or writes, what its last connection brought."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.wire.closing import Close
from featherfed.wire.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    AnyMessage,
    Cancel,
    Finish,
    Hello,
    Key,
    Task,
    UpdateBegin,
    UpdateChunk,
    WholeUpdate,
)
from tests.server.peer import Peer, digest, hello, peer
from tests.server.rounds.masker import masker, maskers
from tests.server.rounds.waiting import WAIT_S, HeldDisk, until

Serve = Callable[..., Any]
FIVE = {"phones": 5, "circle": 5, "secure": True, "uplink": "secure-4bit"}
KEY = 1, 1


@pytest.fixture
def closes(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event before which the server closes no connection: an older one stays, as a half-open one does."""
    stays, close = asyncio.Event(), PhoneConnection.close

    async def closing(phone: PhoneConnection, code: int, sentence: str = "") -> None:
        await stays.wait()
        await close(phone, code, sentence)

    monkeypatch.setattr(PhoneConnection, "close", closing)
    return stays


def begin(payload: bytes, offset: int = 0, data: bytes = b"", attempt: int = 0) -> UpdateBegin:
    return UpdateBegin(1, len(payload), digest(payload), 1, offset, data, attempt)


def trained_anew(payload: bytes) -> bytes:
    """Return another valid update of as many bytes."""
    return bytes(len(payload) // 2) + payload[len(payload) // 2 :]


async def answer(phone: Peer) -> AnyMessage:
    async with asyncio.timeout(WAIT_S):
        while not isinstance(message := await phone.receive(), Ack | Accepted | Cancel):
            pass
    return message


async def joined(other: Peer, older: Peer) -> bytes:
    """Have both join; return the older one's update."""
    await other.join("other")
    await older.join("phone")
    return older.update(await older.task())


def waiting(served: Any) -> int:
    """How many wait for the turn of the phone's update."""
    return len(served.service._uploads.turns._taken.get(KEY) or ())


@pytest.mark.parametrize("anew", [False, True])
async def test_announcement_that_waits_behind_the_newer_connections_question_takes_nothing_over(
    serve: Serve, closes: asyncio.Event, anew: bool
) -> None:
    disk = HeldDisk()
    async with (
        serve(disk={"injector": disk}) as served,
        peer(served.address) as other,
        peer(served.address) as older,
        peer(served.address) as newer,
    ):
        late = await joined(other, older)
        payload = trained_anew(late) if anew else late
        await older.send(begin(late))
        await older.receive_until(Ack)
        disk.held.set()
        await older.send(UpdateChunk(0, late[:1000]))
        await until(disk.waits.is_set)
        await older.send(begin(late, 1000, late[1000:3000]))
        await newer.join("phone")
        await newer.send(begin(payload))
        await until(lambda: waiting(served) == 1)
        disk.held.clear()
        disk.let_go.set()
        there = 0 if anew else 1000
        assert await answer(newer) == Ack(1, there)
        await newer.send(UpdateChunk(there, payload[there : there + 500]))
        assert await answer(newer) == Ack(1, there + 500)
        await newer.send(UpdateChunk(there + 500, payload[there + 500 :]))
        assert await answer(newer) == Accepted(1)
        total = served.service.ledger.total("uplink", shard=1)
        assert (total.resent, total.wasted) == ((0, 3000) if anew else (2000, 0))
        closes.set()


@pytest.mark.parametrize("mode", [{}, {"mode": "async", "buffer": 2}])
@pytest.mark.parametrize("whole", [False, True])
async def test_phone_that_forgot_its_update_and_trained_anew_is_called_off_where_the_first_one_counts(
    serve: Serve, closes: asyncio.Event, mode: dict[str, Any], whole: bool
) -> None:
    async with (
        serve(**mode) as served,
        peer(served.address) as other,
        peer(served.address) as older,
        peer(served.address) as newer,
    ):
        late = await joined(other, older)
        payload = trained_anew(late)
        if not whole:
            await older.send(begin(late, 0, late[:1000]))
            await older.receive_until(Ack)
        await newer.join("phone")
        assert isinstance(await newer.task(), Task)
        await older.send(WholeUpdate(1, late, 1) if whole else UpdateChunk(1000, late[1000:]))
        assert await answer(older) == Accepted(1)
        await newer.upload(1, payload)
        assert await answer(newer) == Cancel(1)
        await newer.upload(1, late)
        assert await newer.receive_until(Accepted) == Accepted(1)
        assert not served.watcher.told("fault")
        await until(lambda: served.service.ledger.total("uplink", shard=1).resent == len(late))
        total = served.service.ledger.total("uplink", shard=1)
        assert total.payload - total.resent - total.wasted == len(late)
        closes.set()


async def test_other_bytes_that_wait_while_the_first_ones_are_counted_are_not_taken_for_these(
    serve: Serve, closes: asyncio.Event
) -> None:
    async with serve() as served, peer(served.address) as other, peer(served.address) as older:
        late = await joined(other, older)
        payload = trained_anew(late)
        async with peer(served.address) as newer:
            await newer.join("phone")
            await newer.task()
            async with served.service._round.lock:
                await older.send(WholeUpdate(1, late, 1))
                await until(lambda: KEY in served.service._uploads.turns._taken)
                await newer.send(begin(payload, 0, payload[:5000]))
                await until(lambda: waiting(served) == 1)
            assert await answer(older) == Accepted(1)
            assert await answer(newer) == Cancel(1)
            assert served.store.update(*KEY).digest == digest(late)
            total = served.service.ledger.total("uplink", shard=1)
            assert (total.resent, total.wasted) == (0, 5000)
            closes.set()


async def test_late_bytes_of_another_update_book_no_fault_and_are_wasted(serve: Serve, closes: asyncio.Event) -> None:
    async with serve() as served, peer(served.address) as other, peer(served.address) as older:
        late = await joined(other, older)
        payload = trained_anew(late)
        async with peer(served.address) as newer:
            await newer.join("phone")
            await newer.task()
            await newer.send(begin(payload))
            assert await answer(newer) == Ack(1, 0)
            await older.send(begin(late, 0, late[:1000]))
            await older.send(UpdateChunk(1000, late[1000:9000]))
            total = served.service.ledger.total
            await until(lambda: total("uplink", shard=1).wasted == 9000)
            await newer.send(WholeUpdate(1, payload, 1))
            assert await answer(newer) == Accepted(1)
            await older.send(WholeUpdate(1, late, 1))
            await until(lambda: total("uplink", shard=1).wasted == 9000 + len(late))
            assert not served.watcher.told("fault")
            closes.set()


async def test_phone_is_not_asked_on_its_next_connection_while_the_faulty_one_is_being_closed(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as other, peer(served.address) as older:
        await joined(other, older)
        # It takes no goodbye.
        older.connection.transport.pause_reading()
        await older.send(b"\x00garbage")
        await until(lambda: served.watcher.told("fault"))
        async with peer(served.address) as newer:
            await newer.join("phone")
            assert served.service.state.failed == {1}
            await other.upload(1, other.update(await other.task()))
            assert await other.receive_until(Accepted) == Accepted(1)
            told: list[AnyMessage] = []
            with pytest.raises(ConnectionClosed):
                while True:
                    told.append(await newer.receive())
            assert [type(message) for message in told] == [Finish], "the run ends, and it was asked for nothing"


# Hello and its place


@pytest.mark.parametrize("closed", [False, True])
async def test_connection_whose_key_comes_behind_the_next_ones_takes_no_place(serve: Serve, closed: bool) -> None:
    async with serve(**FIVE) as served, contextlib.AsyncExitStack() as stack:
        for shard in range(4):
            await (await stack.enter_async_context(masker(served.address, shard))).enter(5)
        older, newer = [await stack.enter_async_context(masker(served.address, 4)) for _ in range(2)]
        await older.join("p4", shard=4, shards=5)
        await newer.enter(5)
        circle = await newer.circle()
        place = served.service.fleet.connections[4]
        await older.send(Key(older.key.public))
        if closed:
            older.connection.transport.close()
        else:
            assert await older.closed() == (Close.REPLACED, "phone 'p4' has a newer connection")
        await until(lambda: len(list(served.service._connections)) == 5)
        assert served.service.fleet.connections[4] is place
        # The key that counts is the newer one's, with which its circle was dealt.
        await newer.send_update(circle)


async def test_nothing_of_an_overtaken_connection_is_taken_behind_the_newer_ones_question(serve: Serve) -> None:
    async with serve(**FIVE) as served, maskers(served.address, 5) as phones, contextlib.AsyncExitStack() as stack:
        circles = [await phone.circle() for phone in phones]
        gone, circle = phones[4], circles[4]
        data = gone.mask(circle)
        gone.connection.transport.abort()
        await until(lambda: 4 not in served.service.fleet.connections)
        older, newer = [await stack.enter_async_context(masker(served.address, 4, gone.key)) for _ in range(2)]
        for phone in (older, newer):
            await phone.join("p4", shard=4, shards=5)
        await older.send(Key(gone.key.public))
        await older.send(begin(data, 0, data[:1000], circle.attempt))
        await older.send(UpdateChunk(1000, data[1000:3000]))
        await newer.send(Key(gone.key.public))
        await newer.send(begin(data, attempt=circle.attempt))
        there = await answer(newer)
        assert isinstance(there, Ack)
        assert await older.closed() == (Close.REPLACED, "phone 'p4' has a newer connection")
        await until(lambda: len(list(served.service._connections)) == 5)
        assert served.service._uploads.get((1, 4)).durable == there.offset


async def test_newcomer_that_waits_for_the_disk_is_overtaken_by_its_next_connection(serve: Serve) -> None:
    disk = HeldDisk()
    async with (
        serve(disk={"injector": disk}) as served,
        peer(served.address) as other,
        peer(served.address) as older,
        peer(served.address) as newer,
    ):
        await other.join("other")
        disk.held.set()
        await older.send(hello("phone"))
        await until(lambda: 1 in served.service.fleet.names and disk.waits.is_set())
        joining = asyncio.create_task(newer.join("phone"))
        await until(lambda: len(served.service.fleet._arriving) == 2 or 1 in served.service.fleet.connections)
        disk.held.clear()
        disk.let_go.set()
        await joining
        task = await newer.task()
        assert await older.closed() == (Close.REPLACED, "phone 'phone' has a newer connection")
        await newer.upload(1, newer.update(task))
        assert await newer.receive_until(Accepted) == Accepted(1)


async def test_older_connection_that_cannot_play_gives_nobody_the_shard_of_the_newer(serve: Serve) -> None:
    async with serve(**FIVE) as served, maskers(served.address, 5) as phones:
        older = phones[4]
        async with masker(served.address, 4, older.key) as newer, peer(served.address) as third:
            await newer.join("p4", shard=4, shards=5)
            await older.connection.close(Close.UNABLE, "no data")
            await until(lambda: 4 not in served.service.fleet.connections)
            await third.send(hello("third"))
            assert (await third.closed())[0] in (Close.NO_SHARD, Close.LATER)
            await newer.send(Key(newer.key.public))
            await until(lambda: 4 in served.service.fleet.connections)


# Circles


@pytest.mark.parametrize("whole", [False, True])
async def test_question_behind_the_last_bytes_of_a_masked_update_is_answered(
    serve: Serve, closes: asyncio.Event, whole: bool
) -> None:
    async with serve(**FIVE) as served, maskers(served.address, 5) as phones:
        circles = [await phone.circle() for phone in phones]
        older, circle = phones[4], circles[4]
        data = older.mask(circle)
        if not whole:
            await older.send_update(circle, data, upto=1000)
        turns, key = served.service._uploads.turns, (1, 4)
        async with masker(served.address, 4, older.key) as newer:
            async with served.service._round.lock:
                last = WholeUpdate(1, data, 1, circle.attempt) if whole else UpdateChunk(1000, data[1000:])
                await older.send(last)
                await until(lambda: key in turns._taken)
                await newer.send(Hello(PROTOCOL_VERSION, "p4", 4, 5, pending_round=1))
                await newer.receive()
                await newer.send(Key(newer.key.public))
                await newer.send(begin(data, attempt=circle.attempt))
                await until(lambda: len(turns._taken[key] or ()) == 1)
            assert await answer(newer) == Ack(1, len(data))
        closes.set()
