"""Phones that send anything at all to a served run: each is closed or answered, and the honest one's round ends."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.protocol import State

from featherfed.wire.messages import Accepted, Ack, Cancel, UpdateBegin, UpdateChunk, pack
from tests.server.peer import Peer, hello, peer

from .budget import TOTAL, count

Serve = Callable[..., Any]
PHONES = max(20, TOTAL // 200)
WAIT_S = 300.0


def frame(generator: random.Random) -> bytes | str:
    """A frame that may be right, wrong in a few bytes, or nonsense."""
    number = generator.randrange
    messages = [
        hello("x"),
        UpdateBegin(number(3), 1 + number(200_000), generator.randbytes(8), 1 + number(2000), number(9),
                    generator.randbytes(number(3000))),
        UpdateChunk(number(4000), generator.randbytes(number(3000))),
        Ack(1, number(99)),
        Cancel(1),
    ]  # fmt: skip
    made = bytearray(pack(generator.choice(messages)))
    kind = number(10)
    if kind == 0:
        return generator.randbytes(number(300))
    if kind == 1:
        return "text" * number(50)
    if kind < 4:
        made[number(len(made))] = number(256)
    return bytes(made)


async def misbehave(address: str, seed: int) -> int:
    generator, sent = random.Random(seed), 0
    with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError):
        async with peer(address) as phone:
            if generator.random() < 0.9:
                await phone.join(f"phone-{seed % 4}")
            for _ in range(20):
                sent += 1
                if generator.random() < 0.1 and phone.connection.state is State.OPEN:
                    phone.connection.transport.write(generator.randbytes(40))
                else:
                    await phone.send(frame(generator))
                await asyncio.sleep(0)
            # What it sent last may have been half a frame: neither end need wait for the rest.
            phone.connection.transport.abort()
    return sent


async def play_round(honest: Peer) -> None:
    await honest.upload(1, honest.update(await honest.task()))
    assert await honest.receive_until(Accepted) == Accepted(1)


async def test_phones_that_send_anything_end_no_round_but_their_own(serve: Serve) -> None:
    async with (
        serve(phones=5, quorum=1, deadline=600.0, entrance={"max_handshakes": 16}) as served,
        peer(served.address) as honest,
    ):
        await honest.join("honest")
        sent = 0
        for first in range(0, PHONES, 8):
            sent += sum(await asyncio.gather(*(misbehave(served.address, first + number) for number in range(8))))
        count("frames to a served run", sent)
        assert not served.ended.done()
        if not served.watcher.told("round_opened"):
            for number in range(4):
                async with peer(served.address) as phone:
                    await phone.join(f"phone-{number}")
        await asyncio.wait_for(play_round(honest), WAIT_S)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        (row,) = served.report()["rounds"]
    assert row["accepted"] == 1
