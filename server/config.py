"""The configuration of one run: frozen, checked when it is made, kept as `config.toml` beside what it produced."""

import math
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

import tomlkit

from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.rules.aggregate import Aggregate
from featherfed.rules.naming import check_name
from featherfed.rules.select import Select
from featherfed.rules.server_optimizer import ServerOptimizer
from featherfed.server.measures import Measure, Target
from featherfed.training_settings import KINDS, LARGEST, Training, flag, range_of

MODES = ("sync", "async")
COHORT = 10
SEEDS = 1 << 64
"""What Welcome carries: a seed of 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Training):
    """What a run is; the field names are those of the flags of `fl-server serve`. Durations are in seconds.

    The fields of `Training` are those that whoever trains is told; `lr` is the first round's.
    """

    problem: str = "mnist"
    partition: str = "iid"
    phones: int = 10
    cohort: int = COHORT
    rounds: int = 20
    target: str = ""  # like accuracy=0.97; none: all rounds
    seed: int = 0
    server_optimizer: str = "fedavg"
    server_lr: float = 1.0
    server_average: float = 0.0
    uplink: str = "vertex-small"
    downlink: str = "eden-1bit"
    mode: str = "sync"
    buffer: int = 0  # of mode async; 0: the cohort
    deadline: float = 600.0
    over_select: float = 1.0
    quorum: int = 0  # 0: the cohort
    aggregate: str = "mean"
    select: str = "uniform"
    plugin: list[str] = field(default_factory=list)
    clip_norm: float = 0.0  # 0: no bound
    max_examples: int = 0  # 0: the most that the partition can give a phone
    min_updates: int = 1
    max_retries: int = 3
    heartbeat: float = 20.0
    eval_every: int = 1
    gateways: int = 0  # 0: phones come here

    def __post_init__(self) -> None:
        # Not super(): a class with slots is made anew, and the name in here would be the first one's.
        Training.__post_init__(self)
        at_least = {
            "phones": 1, "cohort": 1, "rounds": 1, "min_updates": 1, "max_retries": 0, "eval_every": 1, "quorum": 0,
            "seed": 0, "max_examples": 0, "buffer": 0, "gateways": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{flag(name)} {getattr(self, name)} is below {least}")
            if getattr(self, name) > LARGEST and name != "seed":
                raise ConfigError(f"{flag(name)} {getattr(self, name)} exceeds {LARGEST:.0f}")
        for name in ("server_lr", "deadline", "heartbeat"):
            value = getattr(self, name)
            if not 0 < value <= LARGEST:
                raise ConfigError(f"{flag(name)} {value} is not a number above 0 and up to {LARGEST:g}")
        if not 0 <= self.clip_norm <= LARGEST:
            raise ConfigError(f"--clip-norm {self.clip_norm} is not a number from 0 to {LARGEST:g}")
        if self.target:
            Target.parse(self.target)
        if not 0 <= self.server_average < 1:
            raise ConfigError(f"--server-average {self.server_average} is not a number from 0 to below 1")
        if self.seed >= SEEDS:
            raise ConfigError(f"--seed {self.seed} exceeds {SEEDS - 1}")
        if not 1 <= self.over_select <= LARGEST:
            raise ConfigError(f"--over-select {self.over_select} is not a number from 1 to {LARGEST:g}")
        if self.cohort > self.phones:
            raise ConfigError(f"--cohort {self.cohort} exceeds --phones {self.phones}")
        if self.mode not in MODES:
            raise ConfigError(f"unknown mode {self.mode!r}{nearest(self.mode, MODES)}")
        if self.mode == "sync" and self.buffer:
            raise ConfigError(f"--buffer {self.buffer} is for --mode async; with --mode sync say --quorum")
        if self.mode == "async" and self.quorum:
            raise ConfigError(f"--quorum {self.quorum} is for --mode sync; with --mode async say --buffer")
        if self.buffer > self.cohort_size:
            raise ConfigError(
                f"--buffer {self.buffer} exceeds the {self.cohort_size} phones that train at a time (--cohort)"
            )
        if self.quorum > self.cohort_size:
            raise ConfigError(f"--quorum {self.quorum} exceeds the {self.cohort_size} phones of a cohort")
        if self.min_updates > self.closing_updates:
            raise ConfigError(
                f"--min-updates {self.min_updates} exceeds the {self.closing_updates} updates that close a round"
            )
        if self.gateways > self.phones:
            raise ConfigError(f"--gateways {self.gateways} exceeds --phones {self.phones}")
        if self.gateways and (self.mode != "sync" or self.quorum or self.over_select > 1):
            raise ConfigError(
                "--gateways sums what all phones of a cohort send: it goes with --mode sync,"
                " and without --quorum and --over-select"
            )
        for name, kind in (("aggregate", Aggregate), ("select", Select), ("server_optimizer", ServerOptimizer)):
            check_name(getattr(self, name), kind)
        if any(not isinstance(source, str) or not source for source in self.plugin):
            raise ConfigError(
                f"--plugin {self.plugin!r} is not the name of a module or file, like mytask or ./mytask.py"
            )

    @property
    def title(self) -> str:
        """The problem's name as part of a folder's: `mnist-2nn`, or `mytask` for `./mytask.py:problem`."""
        source = self.problem.rpartition(":")[0] or self.problem
        return source.removesuffix(".py").replace("/", "-").strip(".-") or "run"

    @property
    def guests(self) -> int:
        """Who connects to this server: its gateways, or its phones."""
        return self.gateways or self.phones

    @property
    def closing_updates(self) -> int:
        """Updates that close a round."""
        return self.quorum or self.buffer or self.cohort

    @property
    def cohort_size(self) -> int:
        """Phones that are asked in a round, over-selection included."""
        return min(self.phones, math.ceil(self.cohort * self.over_select))

    def reached(self, measures: Sequence[Measure], values: Mapping[str, float | None]) -> bool:
        """Return whether the run may end with these values of its measures."""
        if not (self.target and measures):
            return False
        target = Target.parse(self.target)
        return target.measure(measures).reaches(values.get(target.name), target.value)

    def training(self) -> Training:
        """Return what whoever trains is told."""
        return Training(**{each.name: getattr(self, each.name) for each in fields(Training)})

    def to_toml(self) -> str:
        """Return the text of `config.toml`."""
        return tomlkit.dumps(asdict(self))

    def flags(self) -> list[str]:
        """Return the flags of `fl-server serve` that give this configuration: only what differs from the defaults."""
        flags = []
        told = {each.name for each in fields(Training)}
        # What is learned first, and how phones train last.
        for each in sorted(fields(self), key=lambda each: each.name in told):
            value = getattr(self, each.name)
            if each.default is MISSING:
                texts = [f"{key}={_text(one)}" for key, one in value.items()] if isinstance(value, dict) else value
                flags += [part for text in texts for part in (flag(each.name), text)]
            elif value != each.default:
                limits = range_of(each)
                named = limits.spelled if limits and limits.spelled else {}
                flags += [flag(each.name), named.get(value) or _spelled(each.name, value)]
        return flags

    def command(self) -> str:
        """Return the command line that repeats this run, quoted for a shell."""
        return shlex.join(["fl-server", "serve", *self.flags()])


TABLES = {dict: "a table, like { shift = 1 }", list: 'a list, like ["mytask"]'}
DURATIONS = ("deadline", "heartbeat")


def _spelled(name: str, value: object) -> str:
    return f"{value!r}".removesuffix(".0") + "s" if name in DURATIONS else str(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def config_from(values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with these values; raises `ConfigError`, for an unknown key with the nearest known one.

    The cohort is at most the phones where only they are given.
    """
    kinds: dict[str, Any] = {each.name: get_origin(each.type) or each.type for each in fields(RunConfig)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"unknown setting {key!r}{nearest(key, kinds)}")
        kind = kinds[key]
        # TOML, like Python, has 1 where 1.0 would do; but True is no number.
        checked[key] = _float(value) if kind is float and type(value) is int else value
        if type(checked[key]) is not kind:
            raise ConfigError(f"{key} = {value!r:.40} is not {KINDS.get(kind, TABLES.get(kind))}")
    if "phones" in checked:
        checked.setdefault("cohort", min(COHORT, checked["phones"]))
    return RunConfig(**checked)


def _float(value: int) -> float:
    # Infinity is refused wherever a number stands; of a whole one with 400 digits Python makes none.
    return float(value) if abs(value) <= LARGEST else math.inf


def read_config(path: Path) -> RunConfig:
    """Read `config.toml` of a run folder."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the run's configuration {path}: {error}") from error
    if "target_accuracy" in values:
        raise ConfigError(
            f"{path.parent} is a run of an earlier featherfed, which knew no problems and metrics by name; its report"
            " is in its rounds.csv"
        )
    try:
        return config_from(values)
    except ConfigError as error:
        raise ConfigError(f"cannot read the run's configuration {path}: {error}") from error
