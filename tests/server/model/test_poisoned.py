"""Updates that are valid and meant to harm: how far they move the model, and that a resumed run treats them alike."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from featherfed.wire.messages import Accepted
from tests.server.peer import Peer, peer

Serve = Callable[..., Any]
WAIT_S = 30.0


@contextlib.asynccontextmanager
async def phones(served: Any, count: int) -> AsyncIterator[list[Peer]]:
    async with contextlib.AsyncExitStack() as stack:
        there = [await stack.enter_async_context(peer(served.address)) for _ in range(count)]
        for number, phone in enumerate(there):
            await phone.join(f"phone-{number}")
        yield there


def scaled(update: bytes, factor: float) -> bytes:
    return (np.frombuffer(update, "<f4") * np.float32(factor)).tobytes()


async def moved(serve: Serve, factor: float, **settings: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return how one round moved the model, and the updates of its three phones; the first sends `factor` times its."""
    async with serve(phones=3, **settings) as served, phones(served, 3) as there:
        before, updates = served.aggregator.versions.view.copy(), []
        for number, phone in enumerate(there):
            update = phone.update(await phone.task())
            update = scaled(update, factor) if number == 0 else update
            updates.append(np.frombuffer(update, "<f4"))
            await phone.upload(1, update)
            assert await phone.receive_until(Accepted) == Accepted(1)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        return served.aggregator.versions.view - before, updates


async def test_mean_goes_where_a_liar_likes(serve: Serve) -> None:
    delta, _ = await moved(serve, 1e4)
    assert np.linalg.norm(delta) > 500


async def test_clipped_liar_pulls_as_far_as_one_phone_may(serve: Serve) -> None:
    delta, updates = await moved(serve, 1e4, clip_norm=0.5)
    assert np.linalg.norm(updates[0]) > 1000
    assert np.linalg.norm(delta) <= 0.5 * 1.001


@pytest.mark.parametrize("aggregate", ["median", "trimmed-mean:0.3"])
async def test_robust_aggregate_stays_among_the_honest(serve: Serve, aggregate: str) -> None:
    delta, updates = await moved(serve, -1e6, aggregate=aggregate)
    honest = np.stack(updates[1:])
    # The model is float32: what is added to it is rounded to its weights' precision.
    assert (delta >= honest.min(axis=0) - 1e-6).all()
    assert (delta <= honest.max(axis=0) + 1e-6).all()


async def test_one_update_cannot_have_the_others_refused(serve: Serve) -> None:
    """A sum has room for so much; who would take more than a phone's share of it is refused, not those who follow."""
    async with serve(phones=3) as served, phones(served, 3) as there:
        payloads = [phone.update(await phone.task()) for phone in there]
        greedy = np.frombuffer(payloads[0], "<f4").copy()
        greedy[10] = 2.0**31
        await there[0].upload(1, greedy.tobytes())
        code, sentence = await there[0].closed()
        assert code == 4003
        assert sentence == "update with a value of 2.14748e+09 and weight 1 exceeds what a sum can hold"
        for phone, payload in zip(there[1:], payloads[1:], strict=True):
            await phone.upload(1, payload)
            assert await phone.receive_until(Accepted) == Accepted(1)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None


@pytest.mark.parametrize("aggregate", ["mean", "median", "trimmed-mean:0.3"])
async def test_resumed_run_folds_the_same_updates_again(serve: Serve, aggregate: str) -> None:
    settings = {"phones": 3, "aggregate": aggregate, "clip_norm": 1.0, "heartbeat": 20.0}

    async def play(served: Any, numbers: range, there: list[Peer]) -> None:
        for number in numbers:
            await there[number].upload(1, scaled(there[number].update(await there[number].task()), 1 + 100 * number))
            assert await there[number].receive_until(Accepted) == Accepted(1)

    async with serve(name="calm", **settings) as served, phones(served, 3) as there:
        await play(served, range(3), there)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        calm = served.aggregator.versions.view.tobytes()
    async with serve(name="cut", **settings) as served, phones(served, 3) as there:
        await play(served, range(2), there)
    async with serve(name="cut", resume=True) as served, phones(served, 3) as there:
        await play(served, range(2, 3), there)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        assert served.aggregator.versions.view.tobytes() == calm
        assert served.report()["rounds"][0]["accepted"] == 3
