"""An update of one message is taken at the socket, and comes to the same end as on the way that all others go."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.receiving import Receiver
from featherfed.server.rounds.short_way import ShortWay
from featherfed.wire.framing import masked_frame
from featherfed.wire.messages import Accepted, Ack, Cancel, UpdateBegin, UpdateChunk, WholeUpdate, pack
from tests.server.peer import Peer, digest, peer
from tests.server.rounds.waiting import HeldDisk, until

Serve = Callable[..., Any]
SPEC = "vertex-small"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards whose updates went the short way."""
    shards: list[int] = []
    take = ShortWay.take

    def noted(self: ShortWay, phone: Any, update: WholeUpdate, counted: Any) -> None:
        shards.append(phone.shard)
        take(self, phone, update, counted)

    monkeypatch.setattr(ShortWay, "take", noted)
    return shards


@pytest.fixture(params=["short", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which way updates of one message go."""
    if request.param == "long":
        monkeypatch.setattr(ShortWay, "takes", lambda *_: False)
    return str(request.param)


async def send_whole(phone: Peer, payload: bytes, *, examples: int = 1) -> None:
    await phone.send(WholeUpdate(1, payload, examples))


@asynccontextmanager
async def being_written(serve: Serve) -> AsyncIterator[tuple[Any, HeldDisk, Peer, bytes]]:
    """Give a server that writes the update of its second phone, its disk, which is held, the phone and its payload."""
    disk = HeldDisk()
    async with (
        serve(phones=2, uplink=SPEC, disk={"injector": disk}) as served,
        peer(served.address) as other,
        peer(served.address) as phone,
    ):
        await other.join("other")
        await phone.join("phone")
        payload = phone.update(await phone.task())
        disk.held.set()
        await send_whole(phone, payload)
        await until(disk.waits.is_set)
        yield served, disk, phone, payload


async def test_update_of_one_message_is_taken_where_the_socket_brings_it(
    serve: Serve, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unused(*_: Any) -> None:
        raise AssertionError("the way of updates that come in several messages")

    monkeypatch.setattr(Receiver, "begin", unused)
    async with serve(phones=1, uplink=SPEC) as served, peer(served.address) as phone:
        await phone.join("phone")
        payload = phone.update(await phone.task())
        await send_whole(phone, payload, examples=7)
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert await served.ended is None
        (update,) = served.store.updates()
        assert served.watcher.told("upload_advanced") == [(0, 1, 0, len(payload))]
    assert taken == [0]
    assert (update.state, update.size, update.digest, update.examples) == ("accepted", len(payload), digest(payload), 7)


async def test_both_ways_leave_the_same_rows_and_the_same_model(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def played(name: str) -> tuple[Any, ...]:
        async with serve(name=name, run_id="run", phones=2, uplink=SPEC) as served:
            async with peer(served.address) as first, peer(served.address) as second:
                await first.join("first")
                await second.join("second")
                for phone, examples in ((first, 3), (second, 0)):
                    await send_whole(phone, phone.update(await phone.task()), examples=examples)
                    assert await phone.receive_until(Accepted) == Accepted(1)
                await first.closed()
                await second.closed()
            assert await served.ended is None
            traffic = {key: served.service.ledger.read(key) for key in sorted(served.service.ledger.keys())}
            assert served.store.traffic() == traffic
            return traffic, served.store.updates(), served.aggregator.versions.view.tobytes()

    short = await played("short")
    monkeypatch.setattr(ShortWay, "takes", lambda *_: False)
    assert await played("long") == short


async def test_update_sent_again_counts_once(serve: Serve, way: str, taken: list[int]) -> None:
    async with being_written(serve) as (served, disk, phone, payload):
        # In one piece with what follows, and each while the one before it is under way.
        await send_whole(phone, payload)
        await phone.upload(1, payload)
        disk.let_go.set()
        for _ in range(3):
            assert await phone.receive_until(Accepted) == Accepted(1)
        total = served.service.ledger.total("uplink", shard=1)
        assert (total.payload, total.resent, total.wasted) == (3 * len(payload), 2 * len(payload), 0)
        assert served.service.state.accepted == {1}
    assert taken == ([1] if way == "short" else [])


async def test_newer_connection_hears_of_the_older_ones_update_once_it_is_durable(
    serve: Serve, way: str, taken: list[int]
) -> None:
    disk = HeldDisk()
    async with serve(phones=2, uplink=SPEC, disk={"injector": disk}) as served, peer(served.address) as other:
        await other.join("other")
        async with peer(served.address) as older:
            await older.join("phone")
            payload = older.update(await older.task())
            disk.held.set()
            await send_whole(older, payload)
            await until(disk.waits.is_set)
        async with peer(served.address) as newer:
            await newer.join("phone")
            await send_whole(newer, payload)
            counted = served.service.ledger.total
            await until(lambda: counted("uplink", shard=1).payload == 2 * len(payload))
            hearing = asyncio.create_task(newer.receive_until(Accepted))
            assert not (await asyncio.wait({hearing}, timeout=0.1))[0]
            disk.let_go.set()
            assert await hearing == Accepted(1)
            assert counted("uplink", shard=1).resent == len(payload)
    assert taken == ([1] if way == "short" else [])


async def test_what_a_phone_says_while_its_update_is_under_way_is_heard_afterwards(
    serve: Serve, way: str, taken: list[int]
) -> None:
    async with being_written(serve) as (served, disk, phone, _):
        await phone.send(b"\xc1")
        await asyncio.sleep(0.05)
        disk.let_go.set()
        assert await phone.receive_until(Accepted) == Accepted(1)
        code, sentence = await phone.closed()
        assert (code, "not msgpack" in sentence) == (4001, True)
        assert served.service.state.accepted == {1}
    assert taken == ([1] if way == "short" else [])


async def test_an_error_where_an_update_is_taken_ends_its_connection_and_no_other(
    serve: Serve, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        serve(phones=2, uplink=SPEC) as served,
        peer(served.address) as struck,
        peer(served.address) as other,
    ):
        await struck.join("struck")
        await other.join("other")
        payloads = [phone.update(await phone.task()) for phone in (struck, other)]
        advanced = served.watcher.upload_advanced

        def breaks(shard: int, *rest: Any) -> None:
            if shard == 0:
                raise KeyError("unforeseen")
            advanced(shard, *rest)

        monkeypatch.setattr(served.watcher, "upload_advanced", breaks)
        await send_whole(struck, payloads[0])
        code, sentence = await struck.closed()
        assert code == 4000 and "the server failed on a message of it: KeyError: 'unforeseen'" in sentence
        assert served.service._uploads.turns.free((1, 0))
        await send_whole(other, payloads[1])
        assert await other.receive_until(Accepted) == Accepted(1)
        assert await served.ended is None
    assert taken == [0, 1]


async def test_an_error_where_an_update_is_answered_ends_its_connection_and_no_other(
    serve: Serve, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: PhoneConnection, *given: Any) -> bool:
        if self.shard == 1:
            raise KeyError("unforeseen")
        return send_at_once(self, *given)

    send_at_once = PhoneConnection.send_at_once
    monkeypatch.setattr(PhoneConnection, "send_at_once", breaks)
    disk = HeldDisk()
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve(phones=4, uplink=SPEC, disk={"injector": disk}))
        phones = [await stack.enter_async_context(peer(served.address)) for _ in range(4)]
        for number, phone in enumerate(phones):
            await phone.join(f"phone-{number}")
        payloads = [phone.update(await phone.task()) for phone in phones]
        disk.held.set()
        await send_whole(phones[0], payloads[0])
        await until(disk.waits.is_set)
        for phone, payload in zip(phones[1:], payloads[1:], strict=True):
            await send_whole(phone, payload)
        disk.let_go.set()
        code, sentence = await phones[1].closed()
        assert code == 4000 and "the server failed on a message of it: KeyError: 'unforeseen'" in sentence
        for phone in (phones[0], *phones[2:]):
            assert await phone.receive_until(Accepted) == Accepted(1)
        assert await served.ended is None
        assert [update.state for update in served.store.updates()] == ["accepted"] * 4
    assert sorted(taken) == [0, 1, 2, 3]


async def test_update_of_a_phone_that_is_gone_before_it_is_durable_counts(
    serve: Serve, way: str, taken: list[int]
) -> None:
    disk = HeldDisk()
    async with serve(phones=1, uplink=SPEC, disk={"injector": disk}) as served:
        async with peer(served.address) as phone:
            await phone.join("phone")
            payload = phone.update(await phone.task())
            disk.held.set()
            await send_whole(phone, payload)
            await until(disk.waits.is_set)
            phone.connection.transport.abort()
        disk.let_go.set()
        assert await served.ended is None
        assert [update.state for update in served.store.updates()] == ["accepted"]
    assert taken == ([0] if way == "short" else [])


async def test_update_that_comes_too_late_is_called_off_and_wasted(serve: Serve, way: str, taken: list[int]) -> None:
    async with (
        serve(phones=2, rounds=2, uplink=SPEC, cohort=2, quorum=1) as served,
        peer(served.address) as first,
        peer(served.address) as second,
    ):
        await first.join("first")
        await second.join("second")
        payloads = [phone.update(await phone.task()) for phone in (first, second)]
        async with served.service._round.lock:
            # Both wait for the round, which has room for one.
            for phone, payload in zip((first, second), payloads, strict=True):
                await send_whole(phone, payload)
            waiting = served.service._intake._waiting
            await until(lambda: len(waiting) == 2)
        assert await first.receive_until(Accepted) == Accepted(1)
        assert await second.receive_until(Cancel) == Cancel(1)
        total = served.service.ledger.total("uplink", shard=1)
        assert (total.payload, total.wasted, total.resent) == (len(payloads[1]), len(payloads[1]), 0)
    assert taken == ([0, 1] if way == "short" else [])


async def test_update_that_is_not_valid_is_refused_and_wasted(serve: Serve, way: str, taken: list[int]) -> None:
    async with serve(uplink="float32") as served, peer(served.address) as honest, peer(served.address) as wrong:
        await wrong.join("wrong")
        await honest.join("honest")
        task = await honest.task()
        values = np.frombuffer(wrong.update(task), "<f4").copy()
        values[10] = np.nan
        await send_whole(wrong, values.tobytes())
        code, sentence = await wrong.closed()
        assert (code, "1 of 400 numbers are NaN or infinite" in sentence) == (4003, True)
        await send_whole(honest, honest.update(task))
        assert await served.ended is None
        total = served.service.ledger.total("uplink", shard=0)
        assert total.wasted == total.payload == values.nbytes
        assert [update.shard for update in served.store.updates()] == [1]
        assert [fault.phone for fault in served.store.faults()] == ["wrong"]
    assert taken == ([0, 1] if way == "short" else [])


@pytest.mark.parametrize(
    ("update", "code", "sentence"),
    [
        (WholeUpdate(1, bytes(100_000), 1), 4004, "update of 100000 bytes exceeds"),
        (WholeUpdate(1, bytes(4), 1 << 40), 4004, "claims 1099511627776 examples"),
        (WholeUpdate(1, bytes(4), 1), 4003, "too early"),
    ],
)
async def test_update_that_breaks_a_limit_is_refused_in_the_words_that_say_why(
    serve: Serve, way: str, update: WholeUpdate, code: int, sentence: str
) -> None:
    async with serve(uplink=SPEC) as served, peer(served.address) as other, peer(served.address) as wrong:
        await wrong.join("wrong")
        await other.join("other")
        await wrong.task()
        await wrong.send(update)
        closed_code, closed_reason = await wrong.closed()
    assert (closed_code, sentence in closed_reason) == (code, True), closed_reason


async def test_whole_update_ends_one_that_is_under_way_in_chunks(serve: Serve, way: str) -> None:
    async with serve(phones=1, uplink=SPEC) as served, peer(served.address) as phone:
        await phone.join("phone")
        payload = phone.update(await phone.task())
        await phone.send(UpdateBegin(1, len(payload), digest(payload), 1, 0, payload[:100]))
        assert await phone.receive_until(Ack) == Ack(1, 100)
        await send_whole(phone, payload)
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert await served.ended is None
        total = served.service.ledger.total("uplink")
        assert (total.payload, total.resent) == (100 + len(payload), 100)


async def test_frames_in_any_pieces_are_the_same_messages(serve: Serve, way: str, taken: list[int]) -> None:
    """Ping, update and a chunk that belongs to nothing: in pieces of any size, also several in one."""
    for size in (1, 2, 7, 300, 10_000):
        async with (
            serve(name=f"run-{size}", phones=2, uplink=SPEC) as served,
            peer(served.address) as other,
            peer(served.address) as phone,
        ):
            await other.join("other")
            await phone.join("phone")
            payload = phone.update(await phone.task())
            ping = b"\x89\x80" + bytes(4)
            stream = ping + masked_frame(pack(WholeUpdate(1, payload, 1))) + ping
            stream += masked_frame(pack(UpdateBegin(1, len(payload), digest(payload), 1, 0, b"")))
            for start in range(0, len(stream), size):
                phone.connection.transport.write(stream[start : start + size])
                await asyncio.sleep(0)
            for _ in range(2):
                assert await phone.receive_until(Accepted) == Accepted(1)
            total = served.service.ledger.total("uplink", shard=1)
            assert (total.payload, total.resent) == (len(payload), 0)
    assert taken == ([1] * 5 if way == "short" else [])


async def test_chunk_after_a_whole_update_belongs_to_nothing(serve: Serve, way: str) -> None:
    async with serve(phones=2, uplink=SPEC) as served, peer(served.address) as other, peer(served.address) as phone:
        await other.join("other")
        await phone.join("phone")
        payload = phone.update(await phone.task())
        await send_whole(phone, payload)
        assert await phone.receive_until(Accepted) == Accepted(1)
        await phone.send(UpdateChunk(0, b"x"))
        code, sentence = await phone.closed()
    assert (code, sentence) == (4001, "UpdateChunk out of turn: the phone is ready")
