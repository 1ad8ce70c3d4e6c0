"""The configuration of one run: frozen, checked when it is made, kept as `config.toml` beside what it produced."""

import math
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_origin

import tomlkit

from featherfed.by_round import LIKE, ByRound, by_round, is_by_round, steps
from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.rules.aggregate import Aggregate
from featherfed.rules.naming import check_name
from featherfed.rules.select import Select
from featherfed.rules.server_optimizer import ServerOptimizer
from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE, MOST_MEMBERS
from featherfed.server.leftover import parse_leftover
from featherfed.server.measures import Measure, Target
from featherfed.training_settings import KINDS, LARGEST, Training, flag, range_of

MODES = ("sync", "async")
CONNECT = ("always", "when-chosen")
SECURE_UPLINK = "secure-4bit"
COHORT = 10
FOR_ALL, FOR_SOME = "eden-1bit", "lattice(1)"
"""What comes down where nothing is said: to phones that are all asked in each round, and to phones that miss rounds.

A chain's difference is the cheapest way from one version to the next, and what it leaves out fades; each round missed
costs another one. On a lattice what was missed costs little, but the model stays within a step of where it should be:
coarser ones cost less, and small models suffer (docs/CODECS.md).
"""
SEEDS = 1 << 64
"""What Welcome carries: a seed of 64 bits."""
TRAINING_BY_ROUND = tuple(each.name for each in fields(Training) if range_of(each) and each.name != "lr_decay")
BY_ROUND = ("cohort", "quorum", "over_select", "uplink", *TRAINING_BY_ROUND)
"""The settings that may have another value from some round on."""
TOLD_BY_ROUND = (*TRAINING_BY_ROUND, "uplink")
"""Those of them that whoever trains is told."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Training):
    """What a run is; the field names are those of the flags of `fl-server serve`. Durations are in seconds.

    The fields of `Training` are those that whoever trains is told. Those of `BY_ROUND` are the first round's: `later`
    has by name what they are from other rounds on, and `value_at`, `cohort_at`, `uplink_at` and `training` know both.
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
    downlink: str = FOR_ALL
    leftover: str = "keep"  # or drop, or a share of the view
    mode: str = "sync"
    connect: str = "always"
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
    secure: bool = False
    circle: int = 20  # phones whose updates are summed before they are decoded
    slices: int = 1
    unmask_deadline: float = 30.0
    dp: str = ""  # central or distributed; none: no noise
    noise_multiplier: float = 0.0  # 0: what target_epsilon needs
    target_epsilon: float = 0.0  # 0: no limit
    delta: float = 0.0  # 0: 1/(10 · phones)
    participations: int = 0  # 0: as many rounds of a phone as an even share makes
    lost: float = 0.1  # of a circle's phones, whose noise its sum can spare
    colluding: float = 0.1  # of a circle's phones, on whose noise nobody counts
    later: dict[str, dict[int, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # Not super(): a class with slots is made anew, and the name in here would be the first one's.
        Training.__post_init__(self)
        at_least = {
            "phones": 1, "cohort": 1, "rounds": 1, "min_updates": 1, "max_retries": 0, "eval_every": 1, "quorum": 0,
            "seed": 0, "max_examples": 0, "buffer": 0, "gateways": 0, "circle": 1, "slices": 1,
            "participations": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{flag(name)} {getattr(self, name)} is below {least}")
            if getattr(self, name) > LARGEST and name != "seed":
                raise ConfigError(f"{flag(name)} {getattr(self, name)} exceeds {LARGEST:.0f}")
        for name in ("server_lr", "deadline", "unmask_deadline", "heartbeat"):
            value = getattr(self, name)
            if not 0 < value <= LARGEST:
                raise ConfigError(f"{flag(name)} {value} is not a number above 0 and up to {LARGEST:g}")
        for name in ("clip_norm", "noise_multiplier", "target_epsilon"):
            if not 0 <= (value := getattr(self, name)) <= LARGEST:
                raise ConfigError(f"{flag(name)} {value} is not a number from 0 to {LARGEST:g}")
        for name in ("lost", "colluding"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ConfigError(f"{flag(name)} {value} is not a number from 0 to below 1")
        parse_leftover(self.leftover)
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
        asked, closing = self.cohort_size_at(1), self.closing_updates_at(1)
        if self.buffer > asked:
            raise ConfigError(f"--buffer {self.buffer} exceeds the {asked} phones that train at a time (--cohort)")
        if self.quorum > asked:
            raise ConfigError(f"--quorum {self.quorum} exceeds the {asked} phones of a cohort")
        if self.min_updates > closing:
            raise ConfigError(f"--min-updates {self.min_updates} exceeds the {closing} updates that close a round")
        if self.gateways > self.phones:
            raise ConfigError(f"--gateways {self.gateways} exceeds --phones {self.phones}")
        if self.gateways and (self.mode != "sync" or self.quorum or self.over_select > 1):
            raise ConfigError(
                "--gateways sums what all phones of a cohort send: it goes with --mode sync,"
                " and without --quorum and --over-select"
            )
        if self.connect not in CONNECT:
            raise ConfigError(f"unknown --connect {self.connect!r}{nearest(self.connect, CONNECT)}")
        if self.connect == "when-chosen" and (self.mode != "sync" or self.gateways or self.over_select > 1):
            raise ConfigError(
                "--connect when-chosen tells phones their rounds beforehand: it goes with --mode sync, and without"
                " --gateways and --over-select"
            )
        self._check_secure()
        for name, kind in (("aggregate", Aggregate), ("select", Select), ("server_optimizer", ServerOptimizer)):
            check_name(getattr(self, name), kind)
        if any(not isinstance(source, str) or not source for source in self.plugin):
            raise ConfigError(
                f"--plugin {self.plugin!r} is not the name of a module or file, like mytask or ./mytask.py"
            )
        self._check_later()

    def _check_secure(self) -> None:
        """Raise `ConfigError` for what cannot be masked, naming both."""
        if not self.secure:
            return
        if self.mode == "async":
            raise ConfigError("--secure hides updates in the sum of one round, and --mode async sums those of several")
        if self.circle > MOST_MEMBERS:
            raise ConfigError(f"--circle {self.circle} exceeds the {MOST_MEMBERS} phones of a masked circle (--secure)")
        if self.circle < DEFAULT_LEAST_CIRCLE:
            raise ConfigError(
                f"--circle {self.circle} hides a phone among fewer than {DEFAULT_LEAST_CIRCLE} (--secure)"
            )
        if (asked := self.cohort_size_at(1)) < DEFAULT_LEAST_CIRCLE:
            raise ConfigError(
                f"--secure needs circles of at least {DEFAULT_LEAST_CIRCLE} phones, and a round asks {asked} (--cohort)"
            )

    def _check_later(self) -> None:
        """Raise `ConfigError` for a setting that has one value for the whole run, or a round that could not be run."""
        for name, values in self.later.items():
            if name not in BY_ROUND:
                raise ConfigError(
                    f"{flag(name)} has one value for the whole run; by round may be {', '.join(BY_ROUND)}"
                )
            if not values or min(values) < 2:
                raise ConfigError(f"{flag(name)} changes from round 2 on, {LIKE}")
        if "uplink" in self.later and self.mode == "async":
            raise ConfigError(
                f"--uplink {self.spelled('uplink')} changes, and with --mode async updates of several rounds are in one"
                " sum: name one uplink"
            )
        for number in self._changes()[1:]:
            try:
                self.at(number)
            except ConfigError as error:
                raise ConfigError(f"from round {number} on: {error}") from error

    def _changes(self) -> list[int]:
        """Return the rounds from which on a setting is another one; round 1 is the first."""
        return sorted({1, *(number for values in self.later.values() for number in values)})

    def value_at(self, name: str, round_number: int) -> Any:
        """Return a setting's value in a round, counted from 1."""
        first = getattr(self, name)
        return ByRound(first, self.later[name]).at(round_number) if name in self.later else first

    def at(self, round_number: int) -> "RunConfig":
        """Return the configuration of a run that is in all rounds as this one is in one."""
        return replace(self, later={}, **{name: self.value_at(name, round_number) for name in self.later})

    def by_round(self, of: Callable[[int], T]) -> ByRound[T]:
        """Return what a function of the round's number is in each round, for one of the settings alone."""
        return steps({number: of(number) for number in self._changes()})

    @property
    def title(self) -> str:
        """The problem's name as part of a folder's: `mnist-2nn`, or `mytask` for `./mytask.py:problem`."""
        source = self.problem.rpartition(":")[0] or self.problem
        return source.removesuffix(".py").replace("/", "-").strip(".-") or "run"

    @property
    def masks(self) -> bool:
        """Whether what comes to this server is masked: phones' updates are, partial sums of gateways are not."""
        return self.secure and not self.gateways

    @property
    def guests(self) -> int:
        """Who connects to this server: its gateways, or its phones."""
        return self.gateways or self.phones

    @property
    def usual_downlink(self) -> str:
        """What comes down where nothing else is said."""
        asked = [self.cohort_size_at(number) for number in self._changes()]
        return FOR_ALL if self.mode == "sync" and min(asked) == self.phones else FOR_SOME

    @property
    def largest_cohort(self) -> int:
        """How many phones are asked in the largest of all rounds."""
        return max(self.cohort_size_at(number) for number in self._changes())

    def cohort_at(self, round_number: int) -> int:
        """Return how many updates are wanted in a round, counted from 1."""
        return int(self.value_at("cohort", round_number))

    def closing_updates_at(self, round_number: int) -> int:
        """Return how many updates close a round."""
        return int(self.value_at("quorum", round_number) or self.buffer or self.cohort_at(round_number))

    def cohort_size_at(self, round_number: int) -> int:
        """Return how many phones are asked in a round, over-selection included."""
        times = float(self.value_at("over_select", round_number))
        return min(self.phones, math.ceil(self.cohort_at(round_number) * times))

    def uplink_at(self, round_number: int) -> str:
        """Return how the updates of a round are compressed: a codec spec or preset."""
        return str(self.value_at("uplink", round_number))

    def reached(self, measures: Sequence[Measure], values: Mapping[str, float | None]) -> bool:
        """Return whether the run may end with these values of its measures."""
        if not (self.target and measures):
            return False
        target = Target.parse(self.target)
        return target.measure(measures).reaches(values.get(target.name), target.value)

    def decides(self, round_number: int) -> bool:
        """Whether what a round's version is worth says if there is another round: nothing goes on before it is known.

        The last round's is waited for too, since the run ends with it.
        """
        return bool(self.target) or round_number >= self.rounds

    def training(self, round_number: int = 1) -> Training:
        """Return what whoever trains in a round is told; `lr` is as it would be in round 1, and decays from there."""
        return Training(**{each.name: self.value_at(each.name, round_number) for each in fields(Training)})

    def changes(self, round_number: int, since: int = 1) -> dict[str, Any]:
        """Return what whoever trains is told otherwise in a round than in another one, by name."""
        told = {name: self.value_at(name, round_number) for name in TOLD_BY_ROUND if name in self.later}
        return {name: value for name, value in told.items() if value != self.value_at(name, since)}

    def spelled(self, name: str) -> Any:
        """Return a setting's value; one that changes as text, like `12,6`."""
        if name not in self.later:
            return getattr(self, name)
        limits = range_of(KNOWN[name])
        named = (limits.spelled if limits else None) or {}
        return ByRound(getattr(self, name), self.later[name]).text(lambda value: named.get(value) or str(value))

    def settings(self) -> dict[str, Any]:
        """Return all settings by name, as `config.toml` has them."""
        return {name: self.spelled(name) for name in KNOWN}

    def to_toml(self) -> str:
        """Return the text of `config.toml`."""
        return tomlkit.dumps(self.settings())

    def flags(self) -> list[str]:
        """Return the flags of `fl-server serve` that give this configuration: only what differs from the defaults."""
        flags = []
        told = {each.name for each in fields(Training)}
        # What is learned first, and how phones train last.
        for each in sorted(KNOWN.values(), key=lambda each: each.name in told):
            value = self.spelled(each.name)
            if each.default is MISSING:
                texts = [f"{key}={_text(one)}" for key, one in value.items()] if isinstance(value, dict) else value
                flags += [part for text in texts for part in (flag(each.name), text)]
            elif value is True:
                flags.append(flag(each.name))
            elif value != (self.usual_downlink if each.name == "downlink" else each.default):
                limits = range_of(each)
                named = limits.spelled if limits and limits.spelled else {}
                flags += [flag(each.name), named.get(value) or _spelled(each.name, value)]
        return flags

    def command(self) -> str:
        """Return the command line that repeats this run, quoted for a shell."""
        return shlex.join(["fl-server", "serve", *self.flags()])


KNOWN: dict[str, Field[Any]] = {each.name: each for each in fields(RunConfig) if each.name != "later"}
"""The settings by name."""
TABLES = {dict: "a table, like { shift = 1 }", list: 'a list, like ["mytask"]'}
DURATIONS = ("deadline", "unmask_deadline", "heartbeat")


def _spelled(name: str, value: object) -> str:
    return f"{value!r}".removesuffix(".0") + "s" if name in DURATIONS else str(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def config_from(values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with these values; raises `ConfigError`, for an unknown key with the nearest known one.

    The cohort is at most the phones where only they are given, and the downlink the usual one where none is; with
    `secure` the uplink is one that can be summed.
    """
    checked: dict[str, Any] = {}
    later: dict[str, dict[int, Any]] = {}
    for key, value in values.items():
        if key not in KNOWN:
            raise ConfigError(f"unknown setting {key!r}{nearest(key, KNOWN)}")
        if key in BY_ROUND and is_by_round(value):
            plan = _by_round(key, value)
            checked[key] = plan.first
            if plan.later:
                later[key] = dict(plan.later)
        else:
            checked[key] = _checked(key, value)
    if "phones" in checked:
        checked.setdefault("cohort", min(COHORT, checked["phones"]))
    if checked.get("secure"):
        checked.setdefault("uplink", SECURE_UPLINK)
    config = RunConfig(**checked, later=later)
    return config if "downlink" in checked else replace(config, downlink=config.usual_downlink)


def _by_round(key: str, value: Any) -> ByRound[Any]:
    """Return the values of a setting by round, of its kind."""
    try:
        written = by_round(value)
    except ConfigError as error:
        raise ConfigError(f"{key} = {error}") from error
    read = written.map(lambda each: _checked(key, _number(key, each) if isinstance(value, str) else each))
    # Two spellings of one value are no change.
    return steps({1: read.first, **read.later})


def _number(key: str, text: str) -> Any:
    """Return the number that text names, where the setting is one."""
    for kind in (int, float):
        if _kind(key) in (int, float):
            try:
                return kind(text)
            except ValueError:
                pass
    return text


def _kind(key: str) -> Any:
    return get_origin(KNOWN[key].type) or KNOWN[key].type


def _checked(key: str, value: Any) -> Any:
    """Return a setting's value in its own kind; raises `ConfigError` for one of another kind."""
    kind, limits = _kind(key), range_of(KNOWN[key])
    if isinstance(value, str) and limits and limits.spelled:
        value = next((number for number, name in limits.spelled.items() if name == value), value)
    # TOML, like Python, has 1 where 1.0 would do; but True is no number.
    made = _float(value) if kind is float and type(value) is int else value
    if type(made) is not kind:
        raise ConfigError(f"{key} = {value!r:.40} is not {KINDS.get(kind, TABLES.get(kind))}")
    return made


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
