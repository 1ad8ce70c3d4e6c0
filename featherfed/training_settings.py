"""What a round asks of whoever trains, as one value that travels as a whole.

A setting is a field here: its flag, range and help are the field's metadata, its key in `config.toml` and in scenarios
is its name, and it travels in Welcome in the place of its declaration. To add one, add the field and the code that
trains with it (`featherfed/learning/training.py`); nothing in between knows them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, cast

from featherfed.errors import ConfigError, ProtocolError
from featherfed.nearest import nearest

Value = bool | int | float | str
"""What a problem's own setting may be."""
LARGEST = 1e9
"""No number of a run is above a thousand million."""
MAX_TEXT = 256
MAX_SETTINGS = 64
MAX_SETTINGS_BYTES = 16 * 1024
"""Of all names and texts of a problem's settings: they travel in one message, with the model's tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a setting may be: a number from `least` or above `above`, up to `most`; `help` is its flag's."""

    help: str
    least: float | None = None
    above: float | None = None
    most: float = LARGEST
    spelled: Mapping[Any, str] | None = None
    """Values that have a name on the command line."""

    def check(self, name: str, value: float) -> None:
        """Raise `ConfigError` for a value that is out of range."""
        if self.above is not None:
            if not self.above < value <= self.most:
                raise ConfigError(f"{flag(name)} {value} is not a number above {self.above:g} and up to {self.most:g}")
        elif self.least is not None and type(value) is int:
            if value < self.least:
                raise ConfigError(f"{flag(name)} {value} is below {self.least:g}")
            if value > self.most:
                raise ConfigError(f"{flag(name)} {value} exceeds {self.most:g}")
        elif self.least is not None and not self.least <= value <= self.most:
            raise ConfigError(f"{flag(name)} {value} is not a number from {self.least:g} to {self.most:g}")


def setting(default: Any, help: str, **limits: Any) -> Any:
    """Return a field of a configuration with its flag's help and its range."""
    return field(default=default, metadata={"range": Range(help=help, **limits)})


def range_of(of: Field[Any]) -> Range | None:
    """Return a field's range, where it was made by `setting`."""
    return cast("Range | None", of.metadata.get("range"))


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Local training, as all phones of a round do it: minibatch SGD, or what a problem's `learner` makes of it.

    Raises `ConfigError` for a value that is out of its range. `batch_size` 0 is the whole shard (FedSGD with one
    epoch). `set` holds the problem's own settings that were given, by name; what was not has the problem's default.
    """

    epochs: int = setting(1, "Passes of a phone over its shard in a round.", least=1)
    batch_size: int = setting(10, "Examples a step, or all.", least=0, spelled={0: "all"})
    lr: float = setting(0.1, "Learning rate on the phones.", above=0)
    lr_decay: float = setting(1.0, "Factor of the learning rate after each round.", above=0, most=1)
    momentum: float = setting(0.0, "Momentum of the phones' SGD.", least=0)
    weight_decay: float = setting(0.0, "Weight decay of the phones' SGD.", least=0)
    prox_mu: float = setting(0.0, "FedProx's proximal term.", least=0)
    set: dict[str, Value] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            limits = range_of(each)
            if limits is not None:
                limits.check(each.name, getattr(self, each.name))
        size = sum(len(str(part).encode()) for pair in self.set.items() for part in pair)
        if len(self.set) > MAX_SETTINGS or size > MAX_SETTINGS_BYTES:
            raise ConfigError(
                f"--set gives {len(self.set)} settings of {size} bytes; {MAX_SETTINGS} of {MAX_SETTINGS_BYTES} bytes"
                " together is the most"
            )
        for name, value in self.set.items():
            if not (name.isidentifier() and len(name) <= 64):
                raise ConfigError(f"--set {name}={value}: {name!r} is not the name of a setting")
            if not isinstance(value, Value) or (isinstance(value, str) and len(value) > MAX_TEXT):
                raise ConfigError(
                    f"--set {name}={value!r} is not true, false, a number, or a text of up to {MAX_TEXT} characters"
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"--set {name}={value} is not a finite number")

    def to_wire(self) -> list[Value | dict[str, Value]]:
        """Return the settings in the order of their declaration; a whole number takes a byte in place of nine."""
        return [_short(getattr(self, each.name)) for each in fields(Training)]

    @classmethod
    def from_wire(cls, values: Sequence[Value | Mapping[str, Value]]) -> "Training":
        """Return the settings of a Welcome; raises `ProtocolError` for what none could be made of."""
        known = fields(Training)
        if len(values) != len(known):
            raise ProtocolError(f"{len(values)} training settings, and this phone knows {len(known)}")
        return cls._told({each.name: value for each, value in zip(known, values, strict=True)})

    def changed(self, changes: Mapping[str, Value | Mapping[str, Value]]) -> "Training":
        """Return these settings with a Task's changes; raises `ProtocolError` for what none could be made of."""
        if not changes:
            return self
        told = {each.name: getattr(self, each.name) for each in fields(Training)}
        for name in changes:
            if name not in told:
                raise ProtocolError(f"a change of {name[:64]!r}, which is no training setting of this phone")
        return Training._told({**told, **changes})

    @classmethod
    def _told(cls, values: Mapping[str, Any]) -> "Training":
        made: dict[str, Any] = {}
        for each in fields(Training):
            kind, value = dict if each.default is MISSING else each.type, values[each.name]
            made[each.name] = float(value) if kind is float and type(value) is int else value
            if type(made[each.name]) is not kind:
                raise ProtocolError(f"training whose {each.name} is {str(value)[:64]!r}")
        try:
            return Training(**made)
        except ConfigError as error:
            raise ProtocolError(f"training with {error}") from error

    def learning_rate(self, round_number: int) -> float:
        """Return the phones' learning rate in a round, counted from 1."""
        return self.lr * self.lr_decay ** (round_number - 1)

    def in_round(self, round_number: int) -> "Training":
        """Return the settings of one round, whose learning rate is that round's."""
        if self.lr_decay == 1:
            return self
        told = {each.name: getattr(self, each.name) for each in fields(Training)}
        return Training(**{**told, "lr": self.learning_rate(round_number), "lr_decay": 1.0})


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_settings(texts: Sequence[str]) -> dict[str, Value]:
    """Return the settings of `--set NAME=VALUE` flags: true, false, a whole number, a number, or else a text.

    >>> parse_settings(["shift=1", "width=0.5", "flip=true", "mode=soft"])
    {'shift': 1, 'width': 0.5, 'flip': True, 'mode': 'soft'}
    """
    values: dict[str, Value] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {text!r} is not NAME=VALUE, like --set shift=1")
        values[name.strip()] = _value(value.strip())
    return values


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """A problem's own setting: its default, whose type it keeps, the numbers or texts that it may be, and its help.

    >>> Setting(0, least=0, most=27, help="pixels").check("shift", 30)
    Traceback (most recent call last):
        ...
    featherfed.errors.ConfigError: --set shift=30 exceeds 27
    """

    default: Value
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def check(self, name: str, value: Value) -> Value:
        """Return the value in the default's type, or raise `ConfigError`."""
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if kind is str and not isinstance(value, str):
            value = str(value).lower() if isinstance(value, bool) else str(value)
        if type(value) is not kind:
            raise ConfigError(f"--set {name}={value!r} is not {KINDS[kind]}, like {self.default!r}")
        if isinstance(value, int | float):
            if self.least is not None and value < self.least:
                raise ConfigError(f"--set {name}={value} is below {self.least:g}")
            if self.most is not None and value > self.most:
                raise ConfigError(f"--set {name}={value} exceeds {self.most:g}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"--set {name}={value} is not one of {', '.join(self.choices)}")
        return value


KINDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def checked(given: Mapping[str, Value], known: Mapping[str, Setting], problem: str) -> dict[str, Value]:
    """Return all of a problem's settings: those given, checked, and the defaults of the others.

    Raises `ConfigError` for one that the problem does not have, naming the nearest one.
    """
    for name in given:
        if name not in known:
            others = nearest(name, known) if known else "; it has none"
            raise ConfigError(f"--set {name}: problem {problem} has no such setting{others}")
    return {name: each.check(name, given[name]) if name in given else each.default for name, each in known.items()}
