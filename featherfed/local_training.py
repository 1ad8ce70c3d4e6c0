"""How the phones of an experiment train: settings as a value, named as the field names it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from featherfed.by_round import ByRound, ByRoundOr, by_round, is_by_round
from featherfed.errors import ConfigError
from featherfed.keywords import only_known
from featherfed.python_words import in_python_words
from featherfed.training_settings import Training, Value


@dataclass(frozen=True, slots=True)
class TrainingByRound:
    """Local training that changes: `first` is the first round's, `later` has by name what changes, in all rounds."""

    first: Training
    later: Mapping[str, ByRound[Any]]


@only_known
@in_python_words()
def SGD(
    lr: ByRoundOr[float] = 0.1,
    *,
    epochs: ByRoundOr[int] = 1,
    batch_size: ByRoundOr[int | str] = 10,
    lr_decay: float = 1.0,
    momentum: ByRoundOr[float] = 0.0,
    weight_decay: ByRoundOr[float] = 0.0,
    prox_mu: ByRoundOr[float] = 0.0,
    settings: Mapping[str, Value] | None = None,
) -> Training | TrainingByRound:
    """Return the settings of local training: minibatch SGD on each phone (FedAvg: McMahan et al. 2017, 1602.05629).

    `lr` is the learning rate, `lr_decay` its factor after each round, `epochs` the passes of a phone over its examples
    in a round, `batch_size` the examples a step, or "all". `prox_mu` is the proximal term of FedProx (Li et al. 2020,
    1812.06127). Each but `lr_decay` may change by round: `epochs=[5, 1]` is 5 in round 1 and then 1, and
    `epochs={1: 5, 4: 1}` changes in round 4. `settings` are the problem's own, by name. Raises `ConfigError` for a
    value of another type or out of its range.

    >>> SGD(0.05, epochs=2, settings={"shift": 1}).to_wire()
    [2, 10, 0.05, 1, 0, 0, 0, {'shift': 1}]
    """
    own = dict(settings or {})
    if not all(isinstance(name, str) for name in own):
        raise ConfigError(f"settings = {settings!r} are not settings by name, like {{'shift': 1}}")
    given = {
        "lr": _by_round("lr", lr, _number), "lr_decay": ByRound(_number("lr_decay", lr_decay)),
        "momentum": _by_round("momentum", momentum, _number),
        "weight_decay": _by_round("weight_decay", weight_decay, _number),
        "prox_mu": _by_round("prox_mu", prox_mu, _number), "epochs": _by_round("epochs", epochs, _whole),
        "batch_size": _by_round("batch_size", batch_size, _size),
    }  # fmt: skip
    rounds = {1, *(number for values in given.values() for number in values.later)}
    # All rounds' settings are made: one that is out of its range is refused here.
    trained = [
        Training(**{name: values.at(number) for name, values in given.items()}, set=own) for number in sorted(rounds)
    ]
    later = {name: values for name, values in given.items() if values.later}
    return TrainingByRound(trained[0], later) if later else trained[0]


def _by_round(name: str, value: Any, one: Callable[[str, Any], Any]) -> ByRound[Any]:
    if not is_by_round(value) or isinstance(value, str):
        return ByRound(one(name, value))
    try:
        values = by_round(value)
    except ConfigError as error:
        raise ConfigError(f"{name} = {error}") from error
    return values.map(lambda each: one(name, each))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} = {value!r} is not a number")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} = {value!r} is not a whole number")
    return value


def _size(name: str, value: Any) -> int:
    size = 0 if value == "all" else value
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(f"{name} = {value!r} is not a whole number, and not 'all'")
    return size
