"""The one owner of the current round, and how the parts around it are put together."""

import asyncio
import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest

from featherfed.by_round import ByRound
from featherfed.server import rounds
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import Action, Asked, Joined, OpenRound
from featherfed.server.rounds.round_machine import Phase, Rules, RunState
from featherfed.server.run_clock import RunClock
from featherfed.server.service import Service

RULES = Rules(phones=2, rounds=3, cohort_size=ByRound(2), target=ByRound(2), min_updates=1, max_retries=1, seed=0)
MOST_PARAMETERS = 7


class Carried:
    """What was to be carried out, with the phase that whoever does it finds."""

    def __init__(self) -> None:
        self.actions: list[tuple[Action, Phase]] = []
        self.stopped = False

    def carry_out(self, action: Action, current: CurrentRound) -> None:
        self.actions.append((action, current.state.phase))

    def stop(self) -> None:
        self.stopped = True


def round_of(rules: Rules) -> tuple[CurrentRound, Carried]:
    carried = Carried()
    return CurrentRound(RunState(rules), carried, RunClock(0.0), started_s=0.0), carried


async def test_actions_are_carried_out_before_post_returns_and_find_the_new_state() -> None:
    current, carried = round_of(RULES)
    current.post(Joined(0))
    assert carried.actions == [] and current.number == 1
    current.post(Joined(1))
    assert carried.actions == [(OpenRound(1, 0, (0, 1)), Phase.OPEN)]
    assert current.is_open and current.room == 2


async def test_gateway_answers_updates_once_it_knows_its_roots_round() -> None:
    current, _ = round_of(replace(RULES, total=4))
    waiting = asyncio.create_task(current.answers())
    for shard in (0, 1):
        current.post(Joined(shard))
    await asyncio.sleep(0)
    assert not waiting.done()
    await current.post_alone(Asked(2))
    assert await waiting and current.state.round_number == 2


async def test_who_waits_for_a_round_is_let_go_when_the_server_stops() -> None:
    current, carried = round_of(replace(RULES, total=4))
    waiting = asyncio.create_task(current.answers())
    await asyncio.sleep(0)
    current.stop()
    assert not await waiting
    assert carried.stopped


PARTS = [Service] + [
    part
    for module in pkgutil.iter_modules(rounds.__path__, f"{rounds.__name__}.")
    for part in vars(importlib.import_module(module.name)).values()
    if inspect.isclass(part) and part.__module__ == module.name and inspect.isfunction(vars(part).get("__init__"))
]


@pytest.mark.parametrize("part", [part for part in PARTS if not hasattr(part, "__dataclass_fields__")])
def test_parts_of_the_round_are_given_objects_and_few_of_them(part: type) -> None:
    """A part that were given a function of another could be tied into a ring with it."""
    given = list(inspect.signature(part).parameters.values())
    assert len(given) <= MOST_PARAMETERS
    assert not [each.name for each in given if "Callable" in str(each.annotation)]
