"""A rule by its name: one of ours, like `trimmed-mean:0.1`, an installed one, or a user's own, like `mytask:Krum:2`."""

from dataclasses import fields
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.rules import aggregates, distances, optimizers, selections
from featherfed.rules.aggregate import Aggregate
from featherfed.rules.parameters import Rule
from featherfed.rules.select import Select
from featherfed.rules.server_optimizer import ServerOptimizer
from featherfed.user_code import place_of_class
from featherfed.user_modules import import_source, importing

GROUP = "featherfed.rules"
"""The entry points by which a package offers rules; each is a subclass of one of the three."""
OURS: tuple[type[Rule], ...] = (
    aggregates.Mean, aggregates.Median, aggregates.TrimmedMean, distances.GeometricMedian, distances.Krum,
    distances.MultiKrum, optimizers.FedAvg, optimizers.FedAvgM, optimizers.FedAdagrad, optimizers.FedAdam,
    optimizers.FedYogi, selections.Uniform, selections.FastLinks, selections.RarePhones,
)  # fmt: skip
FLAGS: dict[type[Rule], tuple[str, str]] = {
    Aggregate: ("--aggregate", "aggregate"),
    ServerOptimizer: ("--server-optimizer", "server optimizer"),
    Select: ("--select", "selection"),
}
"""The flag that names each kind, and what a sentence calls it."""


def load_aggregate(text: str) -> Aggregate:
    """Return an aggregate by its name; raises `ConfigError`, or `ProblemError` for a fault in a user's file."""
    return cast(Aggregate, _load(text, Aggregate))


def load_select(text: str) -> Select:
    """Return a selection by its name; raises as `load_aggregate`."""
    return cast(Select, _load(text, Select))


def load_server_optimizer(text: str, lr: float) -> ServerOptimizer:
    """Return a server optimizer by its name, with its learning rate; raises as `load_aggregate`."""
    return cast(ServerOptimizer, _load(text, ServerOptimizer, lr=lr))


def spelled(rule: Rule, kind: type[Rule]) -> str:
    """Return the text by which a run's configuration names a rule that is here as an object.

    Raises `ConfigError` where no text leads to it, as to a class inside a function.
    """
    text, what = str(rule), FLAGS[kind][0]
    if "<locals>" in text:
        raise ConfigError(f"{what}: no name leads to the class of {rule!r}, inside a function; put it outside")
    if isinstance(rule, ServerOptimizer):
        again: Rule = load_server_optimizer(text, rule.lr)
    else:
        again = load_select(text) if isinstance(rule, Select) else load_aggregate(text)
    if again != rule:
        raise ConfigError(f"{what} {text} is another one than {rule!r}; put its class into a file of its own")
    return text


def names_of(kind: type[Rule]) -> list[str]:
    """Return the names of our rules of a kind."""
    return [rule.name for rule in OURS if issubclass(rule, kind)]


def check_name(text: str, kind: type[Rule]) -> None:
    """Raise `ConfigError` where no file of a user's own is meant, and no rule has the name; imports nothing."""
    name, _, rest = text.partition(":")
    if name not in names_of(kind) and name not in _entry_points() and not rest.partition(":")[0].isidentifier():
        raise _unknown(text, name, kind)


def _unknown(text: str, name: str, kind: type[Rule]) -> ConfigError:
    known = [*names_of(kind), *_entry_points()]
    return ConfigError(
        f"unknown {FLAGS[kind][1]} {text!r}{nearest(name, known)}; one of your own is named like mytask:{kind.__name__}"
    )


@lru_cache(maxsize=64)
def _load(text: str, kind: type[Rule], **fixed: float) -> Rule:
    what = f"{FLAGS[kind][0]} {text}"
    check_name(text, kind)
    name, _, rest = text.partition(":")
    ours = next((rule for rule in OURS if rule.name == name and issubclass(rule, kind)), None)
    numbers = rest
    made: object = ours
    if ours is None and (target := _entry_points().get(name)):
        module, _, attribute = target.partition(":")
        with importing(what, module):
            made = getattr(import_module(module), attribute)
    elif ours is None:
        source, attribute, numbers = _parted(text)
        module_made = import_source(source, what)
        if not hasattr(module_made, attribute):
            offered = [key for key, value in vars(module_made).items() if _is(value, kind)]
            raise ConfigError(f"{what}: {module_made.__file__} has no {attribute!r}{nearest(attribute, offered)}")
        made = getattr(module_made, attribute)
    if not _is(made, kind):
        raise ConfigError(f"{what}: {getattr(made, '__name__', made)!r} is no subclass of ff.{kind.__name__}")
    assert isinstance(made, type)
    return _make(made, numbers, what, fixed)


def _is(value: object, kind: type[Rule]) -> bool:
    return isinstance(value, type) and issubclass(value, kind)


def _parted(text: str) -> tuple[str, str, str]:
    """Return module, class and numbers.

    >>> _parted("mytask:Krum:2:0.5"), _parted("./my/task.py:Charged")
    (('mytask', 'Krum', '2:0.5'), ('./my/task.py', 'Charged', ''))
    """
    source, _, rest = text.partition(":")
    attribute, _, numbers = rest.partition(":")
    return source, attribute, numbers


def _make(rule: type[Any], text: str, what: str, fixed: dict[str, float]) -> Rule:
    given = text.split(":") if text else []
    names = rule.parameters()
    if len(given) > len(names):
        takes = ", ".join(names) or "no number"
        raise ConfigError(f"{what} has {len(given)} numbers after the name, and it takes {takes}")
    kinds = {field.name: field.type for field in fields(rule)}
    values: dict[str, float] = dict(fixed)
    for name, number in zip(names, given, strict=False):
        try:
            values[name] = int(number) if kinds[name] in (int, "int") else float(number)
        except ValueError as error:
            raise ConfigError(f"{what}: {name} = {number!r} is not a number") from error
    try:
        made: Rule = rule(**values)
    except TypeError as error:
        missing = [name for name in names if name not in values]
        if missing and not getattr(rule, "__abstractmethods__", None):
            raise ConfigError(
                f"{what} needs its {', '.join(missing)} after the colon, like {rule.example or what.split()[-1] + ':2'}"
            ) from error
        raise ConfigError(f"{what}{place_of_class(rule)} cannot be made: {error}") from error
    return made


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}
