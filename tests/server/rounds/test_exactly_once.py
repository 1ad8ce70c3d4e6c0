"""One update counts once, over whatever connections it comes, however late and however often."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.events import Deadline
from featherfed.wire.messages import Accepted, Ack, Cancel, Task, UpdateBegin, UpdateChunk
from tests.server.peer import Peer, digest, peer
from tests.server.rounds.waiting import WAIT_S, until

Serve = Callable[..., Any]


async def begin(phone: Peer, payload: bytes) -> int:
    """Ask how much of an update of round 1 is durable."""
    await phone.send(UpdateBegin(1, len(payload), digest(payload), 1, 0, b""))
    ack = await phone.receive_until(Ack)
    assert isinstance(ack, Ack)
    return ack.offset


async def test_replay_after_the_close_and_after_a_restart_is_accepted_and_not_counted(serve: Serve) -> None:
    async with serve(phones=1, rounds=2) as served, peer(served.address) as phone:
        await phone.join("phone")
        payload = phone.update(await phone.task())
        await phone.upload(1, payload)
        assert await phone.receive_until(Accepted) == Accepted(1)
        await until(lambda: served.service.state.round_number == 2)
        await phone.upload(1, payload)
        assert await phone.receive_until(Accepted) == Accepted(1)
        served.ended.cancel()
        await asyncio.wait({served.ended})
    async with serve(resume=True) as served, peer(served.address) as phone:
        await phone.join("phone")
        await phone.upload(1, payload)
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert served.service.state.round_number == 2
        assert [update.round_number for update in served.store.updates()] == [1]
        total = served.service.ledger.total("uplink")
        assert total.payload - total.resent - total.wasted == len(payload)


async def test_two_connections_of_a_phone_bring_one_update_in_chunks_of_any_size(serve: Serve) -> None:
    async with serve(phones=2, rounds=1) as served, peer(served.address) as other:
        await other.join("other")
        async with peer(served.address) as older:
            await older.join("phone")
            payload = older.update(await older.task())
            await begin(older, payload)
            await older.send(UpdateChunk(0, payload[:5000]))
            assert await older.receive_until(Ack) == Ack(1, 5000)
            async with peer(served.address) as newer:
                await newer.join("phone")
                assert await begin(newer, payload) == 5000
                for offset in range(5000, len(payload), 60_000):
                    await newer.send(UpdateChunk(offset, payload[offset : offset + 60_000]))
                assert await newer.receive_until(Accepted) == Accepted(1)
        assert served.service.state.accepted == {1}
        assert served.store.payload(1, 1) == payload
        total = served.service.ledger.total("uplink", shard=1)
        assert total.payload - total.resent - total.wasted == len(payload)


@pytest.mark.parametrize("trained", ["the same", "to other bytes"])
async def test_what_an_older_connection_still_brings_is_not_taken_behind_the_answer_to_a_newer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, trained: str
) -> None:
    stays_open = asyncio.Event()
    close = PhoneConnection.close

    async def closing(phone: PhoneConnection, code: int, sentence: str) -> None:
        await stays_open.wait()
        await close(phone, code, sentence)

    monkeypatch.setattr(PhoneConnection, "close", closing)
    async with serve(phones=2, rounds=1) as served, peer(served.address) as other, peer(served.address) as older:
        await other.join("other")
        await older.join("phone")
        late = older.update(await older.task())
        payload = late if trained == "the same" else bytes(len(late) // 2) + late[len(late) // 2 :]
        await begin(older, late)
        uploads, key = served.service._uploads, (1, 1)
        uploads.turns.take(key)
        await older.send(UpdateChunk(0, late[:1000]))
        await until(lambda: len(uploads.turns._taken[key] or ()) == 1)
        # Both are at the server when the phone asks on its next connection, and are looked at after its question.
        await older.send(UpdateChunk(1000, late[1000:2000]))
        await older.send(UpdateBegin(1, len(late), digest(late), 1, 2000, late[2000:3000]))
        async with peer(served.address) as newer:
            await newer.join("phone")
            await newer.send(UpdateBegin(1, len(payload), digest(payload), 1, 0, b""))
            await until(lambda: len(uploads.turns._taken[key] or ()) == 2)
            uploads.turns.give_back(key)
            there = 1000 if trained == "the same" else 0
            assert await newer.receive_until(Ack) == Ack(1, there)
            received = served.service.ledger.total
            await until(lambda: received("uplink", shard=1).payload == 3000)
            await newer.send(UpdateChunk(there, payload[there : there + 500]))
            # The server has what this connection brought, and not a byte more.
            assert await newer.receive_until(Ack) == Ack(1, there + 500)
            total = received("uplink", shard=1)
            assert (total.resent, total.wasted) == ((2000, 0) if trained == "the same" else (0, 3000))
            if trained == "the same":
                await newer.send(UpdateChunk(there + 500, payload[there + 500 :]))
                assert await newer.receive_until(Accepted) == Accepted(1)
            stays_open.set()


async def test_update_whose_copy_waits_until_its_round_is_closed_is_accepted_and_not_called_off(serve: Serve) -> None:
    async with (
        serve(mode="async", phones=1, buffer=1, rounds=2) as served,
        peer(served.address) as older,
    ):
        await older.join("phone")
        payload = older.update(await older.task())
        await begin(older, payload)
        uploads, key = served.service._uploads, (1, 0)

        async def wait(number: int) -> None:
            await until(lambda: len(uploads.turns._taken[key] or ()) == number)

        # In this order have their turn: the update, this test while the round is closed, and the copy.
        uploads.turns.take(key)
        await older.send(UpdateChunk(0, payload))
        await wait(1)
        until_closed = asyncio.create_task(uploads.turns.wait(key))
        await wait(2)
        async with peer(served.address) as newer:
            await newer.join("phone")
            await newer.send(UpdateBegin(1, len(payload), digest(payload), 1, 0, b""))
            await wait(3)
            uploads.turns.give_back(key)
            await until_closed
            await until(lambda: served.service.state.round_number == 2 and uploads.get(key) is None)
            uploads.turns.give_back(key)
            async with asyncio.timeout(WAIT_S):
                while not isinstance(answer := await newer.receive(), Ack | Accepted | Cancel):
                    pass
            assert answer == Accepted(1)
        assert [(update.round_number, update.state) for update in served.store.updates()] == [(1, "accepted")]
        total = served.service.ledger.total("uplink", shard=0)
        assert total.payload - total.resent - total.wasted == len(payload)


async def test_straggler_that_is_asked_again_goes_on_where_it_was(serve: Serve) -> None:
    async with serve(phones=1, rounds=1, deadline=0.3, max_retries=50) as served, peer(served.address) as phone:
        await phone.join("phone")
        payload = phone.update(await phone.task())
        await begin(phone, payload)
        await phone.send(UpdateChunk(0, payload[:50_000]))
        await until(lambda: served.service.state.attempt >= 2)
        assert await begin(phone, payload) == 50_000
        await phone.send(UpdateChunk(50_000, payload[50_000:110_000]))
        await phone.send(UpdateChunk(110_000, payload[110_000:]))
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert served.service.ledger.total("uplink").wasted == 0


@pytest.mark.parametrize("under_way", ["its end", "its fold"])
async def test_upload_that_was_called_off_calls_off_no_later_one(serve: Serve, under_way: str) -> None:
    """Its last bytes were on their way to the server, or to the sum, as the phone was asked again in the same round."""
    async with (
        serve(phones=2, cohort=1, rounds=1, max_retries=50) as served,
        peer(served.address) as one,
        peer(served.address) as other,
    ):
        await one.join("one")
        await other.join("other")
        service = served.service
        await until(lambda: service.state.round_number == 1)
        (shard,) = service.state.cohort
        phone = (one, other)[shard]
        payload = phone.update(await phone.task())
        whole = under_way == "its fold"
        async with service._round.lock:
            await begin(phone, payload)
            await phone.send(UpdateChunk(0, payload if whole else payload[:50_000]))
            await until(lambda: not whole or bool(service._intake._waiting))
            while service.state.attempt == 0 or shard not in service.state.outstanding:
                service._round.post(Deadline(1, service.state.attempt))
        assert await phone.receive_until(Cancel) == Cancel(1)
        assert await phone.receive_until(Task) == Task(1, 0)
        if not whole:
            await phone.send(UpdateChunk(50_000, payload[50_000:]))
        await phone.upload(1, payload)
        while not isinstance(message := await phone.receive(), Accepted):
            assert not isinstance(message, Cancel)


async def test_bytes_of_a_cancelled_upload_are_gone_from_the_disk_and_wasted(serve: Serve) -> None:
    async with (
        serve(phones=2, rounds=2, quorum=1) as served,
        peer(served.address) as quick,
        peer(served.address) as slow,
    ):
        await quick.join("quick")
        await slow.join("slow")
        quick_task, slow_task = await quick.task(), await slow.task()
        payload = slow.update(slow_task)
        await slow.upload(1, payload, upto=40_000)
        await until(lambda: len(served.store.payload(1, 1)) > 0)
        await quick.upload(1, quick.update(quick_task))
        assert await slow.receive_until(Cancel) == Cancel(1)
        await until(lambda: served.store.payload(1, 1) == b"")
        assert served.store.update(1, 1) is None
        wasted = served.service.ledger.total("uplink", shard=1).wasted
        assert 16384 <= wasted <= 40_000


async def test_phone_keeps_its_residual_when_the_next_task_overtakes_the_word_that_its_update_counted(
    serve: Serve, tmp_path: Any
) -> None:
    """The server counted the update and was killed before it said so: the phone asks before it trains again."""
    from featherfed.edge_client.one_phone import PhoneOptions, play_phone
    from featherfed.edge_client.phone_state import PhoneState

    lines: list[str] = []
    settings = {"phones": 1, "rounds": 3, "uplink": "feedback | topk(1/8)"}

    async def play(address: str) -> str:
        options = PhoneOptions(server=address, train=False, name="p", state_dir=str(tmp_path / "p"))
        return await asyncio.wait_for(play_phone(options, lines.append), WAIT_S)

    async with serve(name="calm", **settings) as served:
        await play(served.address)
        await served.ended
        calm = served.folder.model.read_bytes()
    kept: list[Any] = []
    accepted = PhoneState.accepted

    def die_once(phone_state: PhoneState, round_number: int) -> None:
        # As if the phone had been killed with the Accepted in its socket.
        if not kept:
            kept.append(phone_state.pending)
            raise asyncio.CancelledError
        accepted(phone_state, round_number)

    PhoneState.accepted = die_once  # type: ignore[method-assign]
    try:
        async with serve(name="killed", **settings) as served:
            player = asyncio.create_task(play(served.address))
            await asyncio.wait({player})
            assert PhoneState(tmp_path / "p").pending is not None
            await until(lambda: served.service.state.round_number == 2)
            await play(served.address)
            await served.ended
            assert served.folder.model.read_bytes() == calm
    finally:
        PhoneState.accepted = accepted  # type: ignore[method-assign]


async def test_bytes_of_an_update_that_cannot_count_from_its_beginning_are_wasted(serve: Serve) -> None:
    """Another one than counts, which is called off, and one that is too large, which is refused: each with bytes."""
    async with serve(phones=2, rounds=1) as served, peer(served.address) as other:
        await other.join("other")
        async with peer(served.address) as phone:
            await phone.join("phone")
            payload = phone.update(await phone.task())
            await phone.upload(1, payload)
            assert await phone.receive_until(Accepted) == Accepted(1)
            await phone.send(UpdateBegin(1, len(payload), bytes(8), 1, 0, payload[:700]))
            assert await phone.receive_until(Cancel) == Cancel(1)
        await other.task()
        await other.send(UpdateBegin(1, 10**9, bytes(8), 1, 0, payload[:300]))
        assert (await other.closed())[0] == 4004
        ledger = served.service.ledger
        assert [ledger.total("uplink", shard=shard).wasted for shard in (1, 0)] == [700, 300]
