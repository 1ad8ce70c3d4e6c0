"""Rules as a run calls them: what comes back is checked, and a fault is a sentence with the user's file and line.

Each raises `ProblemError`; a run pauses on it, with all that it had accepted kept on the disk.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from featherfed.errors import ProblemError
from featherfed.rules.aggregate import F32, Aggregate, Arrays, Updates
from featherfed.rules.select import PhoneFacts, Select, SelectKey
from featherfed.rules.server_optimizer import ServerOptimizer, ServerState
from featherfed.user_code import blaming, place_of


def weighed(rule: Aggregate, examples: int) -> int:
    """Return what an update of so many examples weighs."""
    what = f"the weight of {rule}"
    with blaming(what):
        weight = rule.weight(examples)
    if not isinstance(weight, int | np.integer) or weight < 1:
        raise ProblemError(
            f"{what}{place_of(rule.weight)} is {weight!r} for {examples} examples; it must be a whole number above 0"
        )
    return int(weight)


def combined(rule: Aggregate, state: Arrays, updates: Updates) -> tuple[Arrays, F32]:
    """Return the state after a round, and its update."""
    what = f"the aggregate {rule}"
    if len(updates) < rule.least_updates and rule.needs_all:
        raise ProblemError(f"{what} needs {rule.least_updates} updates, and there are {len(updates)}")
    with blaming(what):
        made: Any = rule.combine(state, updates)
    place = place_of(rule.combine)
    if not (isinstance(made, tuple) and len(made) == 2):
        raise ProblemError(f"{what}{place} must return (state, update), and returns a {type(made).__name__}")
    state, mean = made
    return _arrays(state, f"the state of {rule}{place}"), _vector(mean, updates.parameters, what + place)


def stepped(rule: ServerOptimizer, state: ServerState, update: F32, round_number: int) -> ServerState:
    """Return the server's state after a round."""
    what = f"the server optimizer {rule}"
    with blaming(what):
        made: Any = rule.step(state, update, round_number)
    place = place_of(rule.step)
    if not isinstance(made, ServerState):
        raise ProblemError(f"{what}{place} must return a ff.ServerState, and returns a {type(made).__name__}")
    weights = _vector(made.weights, len(state.weights), what + place)
    return ServerState(weights, _arrays(made.arrays, f"the state of {rule}{place}"))


def started(rule: Aggregate, parameters: int) -> Arrays:
    """Return an aggregate's state before the first round."""
    what = f"the start of {rule}"
    with blaming(what):
        made = rule.start(parameters)
    return _arrays(made, what + place_of(rule.start))


def begun(rule: ServerOptimizer, weights: F32) -> ServerState:
    """Return the server's state before the first round."""
    what = f"the start of {rule}"
    with blaming(what):
        made = rule.start(weights)
    return ServerState(weights, _arrays(made, what + place_of(rule.start)))


def chosen(rule: Select, phones: Sequence[PhoneFacts], size: int, key: SelectKey) -> tuple[int, ...]:
    """Return the chosen shards in rising order: nobody where nobody is there, or nobody is asked for."""
    if not phones or size < 1:
        return ()
    what = f"the selection {rule}"
    with blaming(what):
        shards: list[Any] = list(rule.choose(phones, size, key))
    what += place_of(rule.choose)
    there = {phone.shard for phone in phones}
    if strangers := [shard for shard in shards if shard not in there]:
        raise ProblemError(
            f"{what} returns shard {strangers[0]!r}, which is not one of the {len(phones)} that are there"
        )
    if len(set(shards)) < len(shards):
        raise ProblemError(f"{what} returns a shard twice")
    if not 0 < len(shards) <= size:
        raise ProblemError(f"{what} returns {len(shards)} shards; it is asked for 1 to {size}")
    return tuple(sorted(int(shard) for shard in shards))


def _vector(value: Any, size: int, what: str) -> F32:
    if not isinstance(value, np.ndarray) or value.shape != (size,):
        got = f"shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise ProblemError(f"{what} must return an array of shape ({size},), one number a parameter, and returns {got}")
    if value.dtype.kind not in "fiu":
        raise ProblemError(f"{what} must return float32 numbers, and returns {value.dtype}")
    with np.errstate(over="ignore"):
        vector: F32 = value.astype(np.float32, copy=False)
    if wrong := int((~np.isfinite(vector)).sum()):
        raise ProblemError(f"{what} returns {wrong} of {size} numbers that are NaN or infinite")
    return vector


def _arrays(value: Any, what: str) -> Arrays:
    if not hasattr(value, "items"):
        raise ProblemError(f"{what} must be arrays by name, and is a {type(value).__name__}")
    for name, array in value.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise ProblemError(f"{what} has an array called {name!r}; names are like momentum")
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise ProblemError(f"{what} has {name!r}, a {kind}, and must have float32 arrays alone")
        if not np.isfinite(array).all():
            raise ProblemError(f"{what} has numbers in {name!r} that are NaN or infinite")
    return dict(value)
