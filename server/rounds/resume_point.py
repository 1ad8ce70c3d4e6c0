"""What a run resumes from when its server starts: nothing, or what its folder has."""

import json
import secrets
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from featherfed.by_round import ByRound
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError
from featherfed.privacy.budget import Account
from featherfed.rules.naming import load_select
from featherfed.rules.select import PhoneFacts
from featherfed.server.circle_plan import plan_of
from featherfed.server.config import RunConfig
from featherfed.server.model.circle_sums import TERMS
from featherfed.server.model.run_model import RunModel
from featherfed.server.privacy_plan import privacy_of
from featherfed.server.rounds.async_machine import AsyncState
from featherfed.server.rounds.cohort import Facts, learned
from featherfed.server.rounds.evaluations import untold_in
from featherfed.server.rounds.machines import State
from featherfed.server.rounds.round_machine import Phase, Rules, RunState
from featherfed.server.rounds.stored_circles import StoredCircles
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.storage.circle_rows import keys
from featherfed.server.storage.privacy_rows import account, charged, privacy_by_round
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.store import Statement, Store, figures_of, put_measures, put_value
from featherfed.server.watchers.watcher import RoundSummary

TOLD = "told"


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a run is when its server starts.

    `run` is the run's id; `clock_s` the seconds that it has been served, pauses left out; `round_start_s` when its open
    round was opened, by that clock; `reached` whether the last round that is closed has reached the target; `untold`
    the round whose version is still to be evaluated; `told` how many rounds its phones know to be all of it.
    """

    run: str
    state: State
    clock_s: float
    round_start_s: float
    reached: bool = False
    untold: RoundSummary | None = None
    told: int = 0


def rules(config: RunConfig) -> Rules:
    """Return the round machine's rules of a run."""
    privacy = privacy_of(config)
    return Rules(
        phones=config.guests,
        rounds=config.rounds,
        cohort_size=ByRound(config.gateways) if config.gateways else config.by_round(config.cohort_size_at),
        target=ByRound(config.gateways) if config.gateways else config.by_round(config.closing_updates_at),
        min_updates=min(config.min_updates, config.guests),
        max_retries=config.max_retries,
        seed=config.seed,
        select=load_select(config.select),
        of_all=config.connect == "when-chosen",
        budget=None if privacy is None else privacy.budget,
    )


def put_told(rounds: int) -> Statement:
    """Note that phones were told that so many rounds are all: a server that is resumed then has nobody to wait for."""
    return put_value(TOLD, str(rounds))


def put_facts(facts: Facts) -> Statement:
    """Keep what a selection knows of the phones, as it was when the round opened."""
    rows = [[getattr(each, field.name) for field in fields(PhoneFacts)] for each in facts.values()]
    return put_value("facts", json.dumps(rows))


def facts_from(values: dict[str, str]) -> Facts:
    """Return what `put_facts` kept, or nothing."""
    return MappingProxyType({row[0]: PhoneFacts(*row) for row in json.loads(values.get("facts", "[]"))})


def begin(config: RunConfig, store: Store, model: RunModel) -> ResumePoint:
    """Give a new run its id."""
    run = secrets.token_hex(4)
    parameters = put_value("parameters", str(model.parameters))
    store.apply([put_value("run", run), parameters, put_measures(model.measures)])
    return ResumePoint(run, _state(config), 0.0, 0.0)


def _account(store: Store, closed: list[int]) -> Account:
    """Return what the phones have paid; raises `ConfigError` where a round was closed that nobody has paid for."""
    if unpaid := set(closed) - privacy_by_round(store).keys():
        raise ConfigError(
            f"round {min(unpaid)} of this run was closed without noise, and no account holds for it: begin a new run"
            " for --dp, or take it out of config.toml"
        )
    return account(store)


def state_of(config: RunConfig, its: Rules, **known: Any) -> State:
    """Return the state of a run with these rules, in the machine that it is played by."""
    if config.mode == "async":
        return AsyncState(its, **known)
    if not config.gateways and Pipeline.parse(config.uplink_at(1)).summed:
        plans = config.by_round(lambda number: plan_of(config, number))
        return SummedState(its, plans=plans, **known)
    return RunState(its, **known)


def _state(config: RunConfig, **known: Any) -> State:
    return state_of(config, rules(config), **known)


def _circles(config: RunConfig, store: Store, row: Any, accepted: frozenset[int]) -> tuple[Phase, dict[str, Any]]:
    """Return the phase of an open round of circles, and what is known of them."""
    arrived = frozenset(update.shard for update in store.updates(row.round) if update.state == "arrived")
    stored = StoredCircles.read(store, row.round, accepted | arrived, plan=plan_of(config, row.round))
    circles = stored.attempts.get(row.attempt, ())
    # Whoever was in a final list is not asked again, whatever has become of it.
    spent = {shard for dealt in stored.attempts.values() for circle in dealt for shard in circle.spent}
    failed = frozenset(json.loads(row.refused)) | (spent - accepted - arrived)
    dealt = (row.round, row.attempt) if circles else (0, 0)
    known = {"arrived": arrived, "circles": circles, "dealt": dealt, "failed": failed}
    return Phase.UNMASKING if row.attempt in stored.over else Phase.OPEN, known


def _check_terms(values: dict[str, str], round_number: int, model: RunModel) -> None:
    """Raise `ConfigError` where the circles of an open round were dealt by other settings than there are now.

    Nothing could be opened of them, and what could be would be charged for at another price than its noise has.
    """
    number, then = json.loads(values.get(TERMS, "[0, {}]"))
    if number != round_number or model.sum.circles is None:
        return
    now = model.sum.circles.terms(round_number)
    changed = [f"{name} = {then.get(name)!r} and not {now.get(name)!r}" for name in now if then.get(name) != now[name]]
    if not changed:
        return
    way_out = "put it back in config.toml until the round is closed"
    if "noise_multiplier" in then and then["noise_multiplier"] != now.get("noise_multiplier"):
        # It followed from --target-epsilon, and from --rounds or --participations.
        way_out = f"put it back in config.toml: noise_multiplier = {then['noise_multiplier']!r} keeps it"
    raise ConfigError(f"round {round_number} is open, and its circles have {', '.join(changed)}; {way_out}")


def resume(config: RunConfig, store: Store, folder: RunFolder, model: RunModel) -> ResumePoint:
    """Read where a run stopped; the model is loaded, and the sum of an open round is begun."""
    values = store.values()
    if "run" not in values:
        if folder.model.exists():
            raise ConfigError(
                f"{folder.path} has a model, and its database {folder.database} is empty: put the one that it had back,"
                " or begin a new run"
            )
        # Killed before it was given its id.
        return begin(config, store, model)
    if "version" in values:
        version = int(values["version"])
        model.restore(folder.version(version), version)
        # Killed between the database's word and the file's name: the database is right.
        folder.promote(version)
        if values.get("best") == values["version"]:
            folder.keep_best(version)
    else:
        folder.drop_versions()
    present = frozenset(store.phones())
    if config.masks:
        # Killed between a phone's name and its key: it is in no circle before it has said one.
        present &= keys(store).keys()
    rounds = store.rounds()
    # A problem that was edited meanwhile may have other metrics: rounds that lack the first one are no rivals.
    store.apply([put_measures(model.measures)])
    model.recall(figures_of(row) for row in rounds)
    clock_s, untold = float(values.get("clock_s", 0.0)), untold_in(values)
    known: dict[str, Any] = {"present": present, "facts": facts_from(values)}
    accepted = [update for update in store.updates() if update.state == "accepted"]
    if config.dp:
        known["account"] = _account(store, [row.round for row in rounds if row.state == "closed"])
    if config.mode == "async":
        known["last"] = {update.shard: update.round_number for update in accepted}
    if not rounds or rounds[-1].state == "closed":
        number = rounds[-1].round if rounds else 0
        if untold is not None and config.decides(number):
            # It ends as it would have: what follows it is not known yet.
            known["phase"] = Phase.CLOSING
        reached = bool(rounds) and config.reached(model.measures, figures_of(rounds[-1]))
        state = _state(config, round_number=number, **known)
        told = int(values.get(TOLD, 0))
        return ResumePoint(values["run"], state, clock_s, clock_s, reached, untold, told)
    row = rounds[-1]
    model.sum.open(row.round)
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
    if config.dp:
        known["charged"] = charged(store, row.round)
    phase = Phase.OPEN
    if not model.sum.adds_at_once:
        _check_terms(values, row.round, model)
        phase, of_circles = _circles(config, store, row, known["accepted"])
        known |= of_circles
    state = _state(
        config,
        phase=phase,
        round_number=row.round,
        attempt=row.attempt,
        **({"failed": frozenset(json.loads(row.refused))} | known),
    )
    return ResumePoint(values["run"], state, clock_s, row.started_s, untold=untold)
