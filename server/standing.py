"""Where a run stands when the server starts: new, or as its folder tells."""

import json
import secrets
from dataclasses import dataclass

from server.aggregation import Aggregator
from server.config import RunConfig
from server.round_machine import Phase, Rules, RunState
from server.run_folder import RunFolder
from server.store import Store, put_value


@dataclass(frozen=True, slots=True)
class Standing:
    """`run` is the run's id; `clock_s` the seconds that it has been running, pauses left out."""

    run: str
    state: RunState
    clock_s: float
    round_start_s: float


def rules(config: RunConfig) -> Rules:
    """Return the round machine's rules of a run."""
    return Rules(
        phones=config.phones,
        rounds=config.rounds,
        cohort_size=config.cohort_size,
        target=config.target,
        min_updates=config.min_updates,
        max_retries=config.max_retries,
        seed=config.seed,
    )


def begin(config: RunConfig, store: Store, parameters: int) -> Standing:
    """Give a new run its id."""
    run = secrets.token_hex(4)
    store.apply([put_value("run", run), put_value("parameters", str(parameters))])
    return Standing(run, RunState(rules(config)), 0.0, 0.0)


def resume(config: RunConfig, store: Store, folder: RunFolder, aggregator: Aggregator) -> Standing:
    """Read where a run stopped; the model is loaded, and the sum of an open round is begun."""
    values = store.values()
    if "run" not in values:
        # Killed before it was given its id.
        return begin(config, store, aggregator.parameters)
    if "version" in values:
        version = int(values["version"])
        aggregator.restore(folder.version(version), version)
        # Killed between the database's word and the file's name: the database is right.
        folder.promote(version, best=values.get("best") == values["version"])
    present = frozenset(store.phones())
    rounds = store.rounds()
    accuracies = [row.accuracy for row in rounds if row.accuracy is not None]
    aggregator.best_accuracy = max(accuracies, default=aggregator.best_accuracy)
    clock_s = float(values.get("clock_s", 0.0))
    if not rounds or rounds[-1].state == "closed":
        number = rounds[-1].round if rounds else 0
        state = RunState(rules(config), round_number=number, present=present)
        return Standing(values["run"], state, clock_s, clock_s)
    row = rounds[-1]
    aggregator.open(row.round)
    accepted = frozenset(update.shard for update in store.updates(row.round) if update.state == "accepted")
    state = RunState(
        rules(config),
        phase=Phase.OPEN,
        round_number=row.round,
        attempt=row.attempt,
        cohort=frozenset(json.loads(row.cohort)) | accepted,
        accepted=accepted,
        failed=frozenset(json.loads(row.refused)),
        present=present,
    )
    return Standing(values["run"], state, clock_s, row.started_s)
