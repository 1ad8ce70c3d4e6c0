"""Where a run stands when the server starts: new, or as its folder tells."""

import json
import math
import secrets
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from featherfed.by_round import ByRound
from featherfed.errors import ConfigError
from featherfed.rules.naming import load_select
from featherfed.rules.select import PhoneFacts
from featherfed.server.config import RunConfig
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.rounds import async_machine, round_machine
from featherfed.server.rounds.async_machine import AsyncState
from featherfed.server.rounds.cohort import Facts, learned
from featherfed.server.rounds.round_machine import Action, Event, Phase, Rules, RunState
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Statement, Store, figures_of, put_measures, put_value

State = RunState | AsyncState
"""Both modes' states: what the service asks of them has the same names."""


def advance(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """Advance the machine that the state is of."""
    if isinstance(state, AsyncState):
        return async_machine.advance(state, event)
    return round_machine.advance(state, event)


@dataclass(frozen=True, slots=True)
class Standing:
    """`run` is the run's id; `clock_s` the seconds that it has been running, pauses left out."""

    run: str
    state: State
    clock_s: float
    round_start_s: float
    reached: bool = False


def rules(config: RunConfig) -> Rules:
    """Return the round machine's rules of a run."""
    return Rules(
        phones=config.guests,
        rounds=config.rounds,
        cohort_size=ByRound(config.gateways) if config.gateways else config.by_round(config.cohort_size_at),
        target=ByRound(config.gateways) if config.gateways else config.by_round(config.closing_updates_at),
        min_updates=min(config.min_updates, config.guests),
        max_retries=config.max_retries,
        seed=config.seed,
        select=load_select(config.select),
    )


def put_facts(facts: Facts) -> Statement:
    """Keep what a selection knows of the phones, as it was when the round opened."""
    rows = [[getattr(each, field.name) for field in fields(PhoneFacts)] for each in facts.values()]
    return put_value("facts", json.dumps(rows))


def facts_from(values: dict[str, str]) -> Facts:
    """Return what `put_facts` kept, or nothing."""
    return MappingProxyType({row[0]: PhoneFacts(*row) for row in json.loads(values.get("facts", "[]"))})


def begin(config: RunConfig, store: Store, aggregator: Aggregator) -> Standing:
    """Give a new run its id."""
    run = secrets.token_hex(4)
    parameters = put_value("parameters", str(aggregator.parameters))
    store.apply([put_value("run", run), parameters, put_measures(aggregator.measures)])
    return Standing(run, _state(config), 0.0, 0.0)


def _state(config: RunConfig, **known: Any) -> State:
    return AsyncState(rules(config), **known) if config.mode == "async" else RunState(rules(config), **known)


def resume(config: RunConfig, store: Store, folder: RunFolder, aggregator: Aggregator) -> Standing:
    """Read where a run stopped; the model is loaded, and the sum of an open round is begun."""
    values = store.values()
    if "run" not in values:
        if folder.model.exists():
            raise ConfigError(
                f"{folder.path} has a model, and its database {folder.database} is empty: put the one that it had back,"
                " or begin a new run"
            )
        # Killed before it was given its id.
        return begin(config, store, aggregator)
    if "version" in values:
        version = int(values["version"])
        aggregator.restore(folder.version(version), version)
        # Killed between the database's word and the file's name: the database is right.
        folder.promote(version, best=values.get("best") == values["version"])
    present = frozenset(store.phones())
    rounds = store.rounds()
    # A problem that was edited meanwhile may have other metrics: rounds that lack the first one are no rivals.
    store.apply([put_measures(aggregator.measures)])
    aggregator.best_score = max((aggregator.score(figures_of(row)) for row in rounds), default=-math.inf)
    clock_s = float(values.get("clock_s", 0.0))
    known: dict[str, Any] = {"present": present, "facts": facts_from(values)}
    accepted = [update for update in store.updates() if update.state == "accepted"]
    if config.mode == "async":
        known["last"] = {update.shard: update.round_number for update in accepted}
    if not rounds or rounds[-1].state == "closed":
        number = rounds[-1].round if rounds else 0
        reached = bool(rounds) and config.reached(aggregator.measures, figures_of(rounds[-1]))
        return Standing(values["run"], _state(config, round_number=number, **known), clock_s, clock_s, reached)
    row = rounds[-1]
    aggregator.open(row.round)
    counting = [update for update in accepted if update.counts_in == row.round]
    if known["facts"]:
        for update in counting:
            news = {"examples": update.examples, "last_counted": update.round_number}
            known["facts"] = learned(known["facts"], [update.shard], **news)
    if config.mode == "async":
        # Nobody has a task: phones say for themselves what they still hold.
        known["buffer"] = frozenset((update.round_number, update.shard) for update in counting)
    else:
        known["accepted"] = frozenset(update.shard for update in counting)
        known["cohort"] = frozenset(json.loads(row.cohort)) | known["accepted"]
    state = _state(
        config,
        phase=Phase.OPEN,
        round_number=row.round,
        attempt=row.attempt,
        failed=frozenset(json.loads(row.refused)),
        **known,
    )
    return Standing(values["run"], state, clock_s, row.started_s)
