"""The configuration of one run: frozen, checked when it is made, kept as `config.toml` beside what it produced."""

import math
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

import tomlkit

from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.training_settings import KINDS, LARGEST, Training, flag, range_of

MODES = ("sync", "async")
SERVER_OPTIMIZERS = ("fedavg", "fedavgm", "fedadam", "fedyogi")
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
    target_accuracy: float = 1.0
    seed: int = 0
    lr_decay: float = 1.0
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
        for name in ("lr_decay", "server_lr", "deadline", "heartbeat", "target_accuracy"):
            value = getattr(self, name)
            if not 0 < value <= LARGEST:
                raise ConfigError(f"{flag(name)} {value} is not a number above 0 and up to {LARGEST:g}")
        if not 0 <= self.clip_norm <= LARGEST:
            raise ConfigError(f"--clip-norm {self.clip_norm} is not a number from 0 to {LARGEST:g}")
        for name in ("target_accuracy", "lr_decay"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{flag(name)} {getattr(self, name)} exceeds 1; it is a fraction, like 0.97")
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
        if self.mode == "async" and self.aggregate != "mean":
            raise ConfigError(
                f"--aggregate {self.aggregate} weighs all updates alike, and --mode async must weigh old ones less;"
                " leave one of the two out"
            )
        if self.quorum > self.cohort_size:
            raise ConfigError(f"--quorum {self.quorum} exceeds the {self.cohort_size} phones of a cohort")
        if self.min_updates > self.target:
            raise ConfigError(f"--min-updates {self.min_updates} exceeds the {self.target} updates that close a round")
        if self.gateways > self.phones:
            raise ConfigError(f"--gateways {self.gateways} exceeds --phones {self.phones}")
        if self.gateways and (self.mode != "sync" or self.aggregate != "mean" or self.quorum or self.over_select > 1):
            raise ConfigError(
                "--gateways sums what all phones of a cohort send: it goes with --mode sync and --aggregate mean,"
                " and without --quorum and --over-select"
            )
        if self.server_optimizer not in SERVER_OPTIMIZERS:
            raise ConfigError(
                f"unknown server optimizer {self.server_optimizer!r}{nearest(self.server_optimizer, SERVER_OPTIMIZERS)}"
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
    def target(self) -> int:
        """Updates that close a round."""
        return self.quorum or self.buffer or self.cohort

    @property
    def cohort_size(self) -> int:
        """Phones that are asked in a round, over-selection included."""
        return min(self.phones, math.ceil(self.cohort * self.over_select))

    def reached(self, accuracy: float | None) -> bool:
        """Return whether the run may end with this accuracy."""
        return accuracy is not None and accuracy >= self.target_accuracy

    def learning_rate(self, round_number: int) -> float:
        """Return the phones' learning rate in a round, counted from 1."""
        return self.lr * self.lr_decay ** (round_number - 1)

    def training(self, round_number: int) -> Training:
        """Return what whoever trains in a round is told."""
        told = {field.name: getattr(self, field.name) for field in fields(Training)}
        return Training(**{**told, "lr": self.learning_rate(round_number)})

    def to_toml(self) -> str:
        """Return the text of `config.toml`."""
        return tomlkit.dumps(asdict(self))

    def flags(self) -> list[str]:
        """Return the flags of `fl-server serve` that give this configuration: only what differs from the defaults."""
        flags = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING:
                flags += [part for key, each in value.items() for part in (flag(field.name), f"{key}={_text(each)}")]
            elif value != field.default:
                limits = range_of(field)
                named = limits.spelled if limits and limits.spelled else {}
                flags += [flag(field.name), named.get(value) or _spelled(field.name, value)]
        return flags

    def command(self) -> str:
        """Return the command line that repeats this run, quoted for a shell."""
        return shlex.join(["fl-server", "serve", *self.flags()])


DURATIONS = ("deadline", "heartbeat")


def _spelled(name: str, value: object) -> str:
    return f"{value!r}".removesuffix(".0") + "s" if name in DURATIONS else str(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def config_from(values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with these values; raises `ConfigError`, for an unknown key with the nearest known one.

    The cohort is at most the phones where only they are given.
    """
    kinds: dict[str, Any] = {field.name: get_origin(field.type) or field.type for field in fields(RunConfig)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"unknown setting {key!r}{nearest(key, kinds)}")
        kind = kinds[key]
        # TOML, like Python, has 1 where 1.0 would do; but True is no number.
        checked[key] = float(value) if kind is float and type(value) is int else value
        if type(checked[key]) is not kind:
            raise ConfigError(f"{key} = {value!r} is not {KINDS.get(kind, 'a table, like { shift = 1 }')}")
    if "phones" in checked:
        checked.setdefault("cohort", min(COHORT, checked["phones"]))
    return RunConfig(**checked)


def read_config(path: Path) -> RunConfig:
    """Read `config.toml` of a run folder."""
    try:
        return config_from(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the run's configuration {path}: {error}") from error
