"""The configuration of one run: frozen, checked when it is made, kept as `config.toml` beside what it produced."""

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomlkit

from featherfed.errors import ConfigError
from server.nearest import nearest

SERVER_OPTIMIZERS = ("fedavg", "fedavgm", "fedadam", "fedyogi")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a run is; the field names are those of the flags of `fl-server serve`. Durations are in seconds."""

    model: str = "lite"
    data: str = "mnist"
    partition: str = "iid"
    phones: int = 10
    cohort: int = 10
    rounds: int = 20
    target_accuracy: float = 1.0
    seed: int = 0
    epochs: int = 1
    batch_size: int = 10  # 0: the whole shard
    lr: float = 0.1
    lr_decay: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    prox_mu: float = 0.0
    server_optimizer: str = "fedavg"
    server_lr: float = 1.0
    uplink: str = "float32"
    downlink: str = "float32"
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

    def __post_init__(self) -> None:
        at_least = {
            "phones": 1, "cohort": 1, "rounds": 1, "epochs": 1, "batch_size": 0, "min_updates": 1,
            "max_retries": 0, "eval_every": 1, "quorum": 0, "seed": 0, "max_examples": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{flag(name)} {getattr(self, name)} is below {least}")
        for name in ("lr", "lr_decay", "server_lr", "deadline", "heartbeat", "target_accuracy"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{flag(name)} {value} is not a number above 0")
        for name in ("momentum", "weight_decay", "prox_mu", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{flag(name)} {value} is not a number of 0 or above")
        if self.over_select < 1:
            raise ConfigError(f"--over-select {self.over_select} is below 1")
        if self.cohort > self.phones:
            raise ConfigError(f"--cohort {self.cohort} exceeds --phones {self.phones}")
        if self.quorum > self.cohort_size:
            raise ConfigError(f"--quorum {self.quorum} exceeds the {self.cohort_size} phones of a cohort")
        if self.min_updates > self.target:
            raise ConfigError(f"--min-updates {self.min_updates} exceeds the quorum of {self.target}")
        if self.server_optimizer not in SERVER_OPTIMIZERS:
            raise ConfigError(
                f"unknown server optimizer {self.server_optimizer!r}{nearest(self.server_optimizer, SERVER_OPTIMIZERS)}"
            )

    @property
    def target(self) -> int:
        """Updates that close a round."""
        return self.quorum or self.cohort

    @property
    def cohort_size(self) -> int:
        """Phones that are asked in a round, over-selection included."""
        return min(self.phones, math.ceil(self.cohort * self.over_select))

    def learning_rate(self, round_number: int) -> float:
        """Return the phones' learning rate in a round, counted from 1."""
        return self.lr * self.lr_decay ** (round_number - 1)

    def to_toml(self) -> str:
        """Return the text of `config.toml`."""
        return tomlkit.dumps(asdict(self))

    def command(self, program: str = "fl-server serve") -> str:
        """Return the command line that repeats this run: only what differs from the defaults."""
        parts = [program]
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = f"{value:g}s" if field.name in DURATIONS else str(value)
                parts.append(f"{flag(field.name)} '{text}'" if " " in text else f"{flag(field.name)} {text}")
        return " ".join(parts)


DURATIONS = ("deadline", "heartbeat")


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def config_from(values: dict[str, Any]) -> RunConfig:
    """Return the configuration with these values; an unknown key raises `ConfigError` with the nearest known one."""
    known = {field.name for field in fields(RunConfig)}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}{nearest(key, known)}")
    return RunConfig(**values)


def read_config(path: Path) -> RunConfig:
    """Read `config.toml` of a run folder."""
    try:
        return config_from(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the run's configuration {path}: {error}") from error
