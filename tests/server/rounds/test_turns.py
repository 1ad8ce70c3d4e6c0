"""One at a time has a key's turn, in the order in which they asked."""

import asyncio

from featherfed.server.rounds.turns import Turns


async def test_turns_are_had_one_by_one_in_their_order() -> None:
    turns, had = Turns[str](), list[int]()

    async def have(number: int) -> None:
        async with turns.turn("key"):
            had.append(number)
            await asyncio.sleep(0)
            had.append(number)

    await asyncio.gather(*(have(number) for number in range(4)))
    assert had == [0, 0, 1, 1, 2, 2, 3, 3]
    assert turns.free("key")


async def test_turn_that_was_taken_at_once_is_waited_for() -> None:
    turns, had = Turns[str](), list[str]()
    turns.take("key")

    async def have() -> None:
        async with turns.turn("key"):
            had.append("key")

    waiting = asyncio.create_task(have())
    async with turns.turn("another"):
        await asyncio.sleep(0)
    assert not had
    turns.give_back("key")
    assert not turns.free("key")
    await waiting
    assert had == ["key"] and turns.free("key")


async def test_who_gives_up_waiting_is_passed_over() -> None:
    turns, had = Turns[str](), list[int]()

    async def have(number: int) -> None:
        async with turns.turn("key"):
            had.append(number)

    turns.take("key")
    waiting = [asyncio.create_task(have(number)) for number in range(4)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    turns.give_back("key")
    # It has been handed the turn, and does not know yet.
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert had == [2, 3]
    assert turns.free("key")
