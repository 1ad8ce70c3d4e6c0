"""How long a root waits for its gateways at the end, in virtual time."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from featherfed.bandwidth_sim.virtual import run
from featherfed.gateway.keeper import GOODBYE_S, SAY_S, Keeper
from featherfed.gateway.reports import Report
from featherfed.gateway.serving import GatewayPlan
from featherfed.server.rounds.farewell import STAY_S
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.watchers.watcher import Watcher, Watchers


class Notes(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, sentence: str) -> None:
        self.said.append(sentence)


class Gateway:
    """One that takes so long for its goodbyes; a plan says no more about it here."""

    place = ""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def play(self, plan: GatewayPlan, report: Callable[[Report], None]) -> str:
        await asyncio.sleep(self._seconds)
        return "the run is over"


def waits(phase: Phase, gateways_s: list[float], *, stopped_s: float | None = None) -> tuple[float, list[str]]:
    """Return how long a root waits that has ended in this phase, and is stopped then, and what it says."""
    notes, left = Notes(), list(gateways_s)

    async def ending() -> float:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        service: Any = SimpleNamespace(state=SimpleNamespace(phase=phase), hurried=stopped.wait)
        plan: Any = SimpleNamespace()
        keeper = Keeper(
            gateways=len(gateways_s), plan=lambda *_: cast(GatewayPlan, plan), gateway_host=lambda: Gateway(left.pop())
        )
        watchers = Watchers([notes])
        async with keeper.beside(service, RunFolder(Path("run")), watchers):
            watchers.listening("ws://127.0.0.1:1", "run")
            await asyncio.sleep(0)
            began_s = loop.time()
            if stopped_s is not None:
                loop.call_later(stopped_s, stopped.set)
        return loop.time() - began_s

    return run(ending()), notes.said


def test_gateways_that_have_told_their_phones_end_the_wait() -> None:
    assert waits(Phase.DONE, [0.5, 1.0]) == (pytest.approx(1.0), [])


def test_gateways_that_stay_for_phones_are_waited_for_which_is_said() -> None:
    seconds, said = waits(Phase.DONE, [0.5, 30.0])
    assert seconds == pytest.approx(30.0)
    assert said == [
        "the rounds are done; gateways stay up to 60 s to tell phones that may not know: Ctrl-C ends it now"
    ]
    assert waits(Phase.DONE, [500.0])[0] == pytest.approx(SAY_S + STAY_S)


def test_ctrl_c_ends_the_wait_for_gateways() -> None:
    assert waits(Phase.DONE, [500.0], stopped_s=20.0)[0] == pytest.approx(20.0)


def test_gateways_of_a_run_that_pauses_have_their_goodbyes() -> None:
    # It pauses because it was stopped: that cuts nothing short.
    assert waits(Phase.PAUSED, [1.0], stopped_s=0.0) == (pytest.approx(1.0), [])
    assert waits(Phase.PAUSED, [500.0], stopped_s=0.0) == (pytest.approx(GOODBYE_S), [])
