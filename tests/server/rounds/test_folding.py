"""Whole updates go into the sum in batches: what comes while one is being written is the next one."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from featherfed.server.rounds.folding import Folding, WholeUpdate
from featherfed.wire.messages import Accepted
from tests.server.peer import Peer, peer
from tests.server.rounds.waiting import HeldDisk, until

Serve = Callable[..., Any]
PHONES = 6


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    add = Folding._add

    def noted(self: Folding, batch: Sequence[WholeUpdate]) -> Any:
        sizes.append(len(batch))
        return add(self, batch)

    monkeypatch.setattr(Folding, "_add", noted)
    return sizes


async def joined(served: Any, stack: AsyncExitStack) -> list[tuple[Peer, bytes]]:
    phones = []
    for number in range(PHONES):
        phone = await stack.enter_async_context(peer(served.address))
        await phone.join(f"phone-{number}")
        phones.append(phone)
    return [(phone, phone.update(await phone.task())) for phone in phones]


@asynccontextmanager
async def first_being_written(serve: Serve) -> AsyncIterator[tuple[Any, HeldDisk, list[tuple[Peer, bytes]]]]:
    """Give a server that writes the update of the first of its phones, the disk that it waits for, and the phones."""
    disk = HeldDisk()
    async with (
        serve(phones=PHONES, rounds=1, uplink="vertex-small", disk={"injector": disk}) as served,
        AsyncExitStack() as stack,
    ):
        phones = await joined(served, stack)
        disk.held.set()
        first, payload = phones[0]
        await first.upload(1, payload)
        await until(disk.waits.is_set)
        yield served, disk, phones


async def test_updates_that_come_while_a_batch_is_written_are_the_next_batch(serve: Serve, batches: list[int]) -> None:
    async with first_being_written(serve) as (served, disk, phones):
        for phone, payload in phones[1:-1]:
            await phone.upload(1, payload)
        waiting = served.service._intake._waiting
        await until(lambda: len(waiting) == PHONES - 2)
        assert batches == [1]
        disk.let_go.set()
        for phone, _ in phones[:-1]:
            assert await phone.receive_until(Accepted) == Accepted(1)
        assert batches == [1, PHONES - 2]


async def test_last_updates_of_a_round_do_not_wait_for_the_disk(serve: Serve, batches: list[int]) -> None:
    async with first_being_written(serve) as (_, disk, phones):
        for phone, payload in phones[1:]:
            await phone.upload(1, payload)
        await until(lambda: sum(batches) == PHONES)
        assert batches == [1, PHONES - 1]
        disk.let_go.set()
        for phone, _ in phones:
            assert await phone.receive_until(Accepted) == Accepted(1)
