"""docs/ARCHITECTURE.md tells through which frames an update goes, as a run shows them."""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featherfed.codec.fold import Fold
from featherfed.wire.messages import Accepted
from tests.server.peer import peer

Serve = Callable[..., Any]
TEXT = (Path(__file__).parents[2] / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
TOLD = re.findall(r"^\d\. `(\w+\.\w+)`", TEXT.split("\n## One update, ")[1].split("\n## ")[0], re.M)
FIRST = "Receiver.chunk"
MOST_FRAMES = 9


def frames_of(task: "asyncio.Task[Any]") -> Iterator[str]:
    """Yield the coroutines that a task is in, outermost first."""
    coroutine: Any = task.get_coro()
    while getattr(coroutine, "cr_code", None) is not None:
        yield coroutine.cr_code.co_qualname
        coroutine = coroutine.cr_await


async def test_update_passes_the_frames_that_the_page_tells_on_its_way_to_the_sum(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, passed = asyncio.get_running_loop(), list[list[str]]()
    add_all = Fold.add_all

    def spy(fold: Fold, updates: Any) -> Any:
        """Called in the thread that folds, while all who wait for it stand still."""
        frame, thread = sys._getframe(1), ["Fold.add_all"]
        while frame.f_back is not None and frame.f_globals["__name__"].startswith("featherfed."):
            thread.append(frame.f_code.co_qualname)
            frame = frame.f_back
        tasks = [list(frames_of(task)) for task in asyncio.all_tasks(loop)]
        (receiving,) = (frames[frames.index(FIRST) :] for frames in tasks if FIRST in frames)
        (folding,) = (frames for frames in tasks if frames and frames[0].startswith("Folding."))
        passed.append([*receiving, *folding, *reversed(thread)])
        return add_all(fold, updates)

    monkeypatch.setattr(Fold, "add_all", spy)
    async with serve(phones=1) as served, peer(served.address) as phone:
        await phone.join("phone")
        payload = phone.update(await phone.task())
        await phone.upload(1, payload)
        assert await phone.receive_until(Accepted) == Accepted(1)
    assert passed == [TOLD]
    assert len(TOLD) <= MOST_FRAMES
