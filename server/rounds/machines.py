"""The round machines under one name: what the rest of the server asks of their states is named alike."""

from collections.abc import Sequence

from featherfed.server.rounds import async_machine, round_machine, summed_machine
from featherfed.server.rounds.async_machine import AsyncState
from featherfed.server.rounds.events import Accept, Action, Event
from featherfed.server.rounds.round_machine import RunState
from featherfed.server.rounds.summed_machine import SummedState

State = RunState | AsyncState  # a SummedState is a RunState


def advance(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """Advance the machine that the state is of; return the new state and what must be done now, in that order."""
    if isinstance(state, AsyncState):
        return async_machine.advance(state, event)
    if isinstance(state, SummedState):
        return summed_machine.advance(state, event)
    return round_machine.advance(state, event)


def accept_all(state: State, events: Sequence[Accept]) -> tuple[State, tuple[Action, ...]]:
    """Advance the machine by updates that became durable together, as by one after the other."""
    if type(state) is RunState:
        return round_machine.accept_all(state, events)
    actions: tuple[Action, ...] = ()
    for event in events:
        state, more = advance(state, event)
        actions += more
    return state, actions
