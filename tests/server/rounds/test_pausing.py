"""What phones send to a run that pauses, until its goodbye: it is not called off, and counts once that is resumed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from featherfed.wire.closing import Close
from featherfed.wire.messages import Accepted, Ack, AnyMessage, Cancel, UpdateBegin, UpdateChunk, WholeUpdate
from tests.server.peer import Peer, digest, peer
from tests.server.rounds.test_evaluations import Judge, play
from tests.server.rounds.waiting import until

Serve = Callable[..., Any]
HALF = 64


@contextlib.asynccontextmanager
async def in_round_two(serve: Serve) -> AsyncIterator[tuple[Any, Judge, Peer, Peer, bytes]]:
    """Give a server whose first version is being evaluated, its phones, and the second one's update of round 2."""
    async with (
        serve(problem="digits/tiny", phones=2, rounds=3) as served,
        peer(served.address) as one,
        peer(served.address) as other,
    ):
        judge = Judge(served)
        await one.join("one")
        await other.join("other")
        await play(one, 1)
        await play(other, 1)
        task = await other.task()
        assert task.round == 2
        yield served, judge, one, other, other.update(task)


async def begin(phone: Peer, payload: bytes) -> None:
    """Have the first bytes of an update of round 2 kept."""
    await phone.send(UpdateBegin(2, len(payload), digest(payload), 1, 0, payload[:HALF]))
    assert await phone.receive_until(Ack) == Ack(2, HALF)


async def heard_until_the_goodbye(phone: Peer) -> list[AnyMessage]:
    heard: list[AnyMessage] = []
    try:
        while True:
            heard.append(await phone.receive())
    except ConnectionClosed as error:
        assert error.rcvd is not None and error.rcvd.code == Close.PAUSED
    return heard


@pytest.mark.parametrize("when", ["it comes whole", "its last chunk comes", "it waits", "it waits for its last chunk"])
async def test_update_that_comes_before_the_goodbye_of_a_run_that_pauses_counts_when_it_is_resumed(
    serve: Serve, when: str
) -> None:
    async with in_round_two(serve) as (served, judge, _, other, payload):
        assert other.welcome is not None
        service, shard = served.service, other.welcome.shard
        in_chunks, waits = when.endswith("chunk comes") or when.endswith("last chunk"), when.startswith("it waits")
        if in_chunks:
            await begin(other, payload)
        last = UpdateChunk(HALF, payload[HALF:]) if in_chunks else WholeUpdate(2, payload, 1)
        if waits:
            async with service._round.lock:
                await other.send(last)
                await until(lambda: service._intake._waiting)
                service.stop()
        else:
            service.stop()
            await until(lambda: judge.waited)
            await other.send(last)
        await until(lambda: service.ledger.total("uplink", shard=shard).payload == 2 * len(payload))
        # Time for a word that must not come.
        await asyncio.sleep(0.05)
        await judge.says(1, 0.5)
        assert not [each for each in await heard_until_the_goodbye(other) if isinstance(each, Cancel | Accepted)]
        assert await served.ended == "the operator stopped the run"
    async with serve(resume=True) as served, peer(served.address) as other:
        await other.join("other")
        await other.upload(2, payload)
        assert await other.receive_until(Accepted) == Accepted(2)
        assert served.store.payload(2, shard) == payload
        total = served.service.ledger.total("uplink", shard=shard)
        assert (total.wasted, total.payload - total.resent) == (0, 2 * len(payload))


async def test_fault_of_a_phone_that_had_failed_costs_no_other_one_its_bytes_while_the_run_pauses(
    serve: Serve,
) -> None:
    async with in_round_two(serve) as (served, judge, one, other, payload):
        assert other.welcome is not None
        await begin(other, payload)
        await one.send(WholeUpdate(2, b"?", 1))
        assert (await one.closed())[0] == Close.PAYLOAD
        await until(lambda: served.service.state.failed)
        async with peer(served.address) as again:
            await again.join("one")
            served.service.stop()
            await until(lambda: judge.waited)
            await again.send("words")
            assert (await again.closed())[0] == Close.PROTOCOL
            await asyncio.sleep(0.05)
        await judge.says(1, 0.5)
        assert await served.ended == "the operator stopped the run"
        assert served.store.payload(2, other.welcome.shard) == payload[:HALF]
