"""What a run's tasks do in threads ends before the run: its folder may be another's then."""

import asyncio
import threading

import pytest

from featherfed.server.run_tasks import RunTasks, in_thread


async def test_run_that_ends_waits_for_what_is_being_written() -> None:
    tasks, begun, may, written = RunTasks(), threading.Event(), threading.Event(), []

    def write() -> None:
        begun.set()
        assert may.wait(60)
        written.append("model")

    async def close() -> None:
        await in_thread(write)
        written.append("what comes after it")

    tasks.spawn(close())
    assert await asyncio.to_thread(begun.wait, 60)
    ending = asyncio.create_task(tasks.cancel())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not ending.done()
    may.set()
    await asyncio.wait_for(ending, 60)
    assert written == ["model"]


async def test_task_that_fails_while_it_is_ended_changes_no_outcome() -> None:
    tasks, begun, may = RunTasks(), threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        assert may.wait(60)
        raise OSError("no space left")

    async def close() -> None:
        await in_thread(write)

    tasks.spawn(close())
    assert await asyncio.to_thread(begun.wait, 60)
    tasks.end("paused")
    may.set()
    await tasks.cancel()
    assert await tasks.ended == "paused"


async def test_what_a_thread_returns_and_raises_comes_through() -> None:
    assert await in_thread(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
