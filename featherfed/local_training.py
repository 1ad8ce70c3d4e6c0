"""How the phones of an experiment train: settings as a value, named as the field names it."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from featherfed.by_round import ByRound, ByRoundOr, by_round, is_by_round
from featherfed.errors import ConfigError
from featherfed.keywords import refuse_unknown
from featherfed.python_words import in_python_words
from featherfed.training_settings import KINDS, Training, Value, range_of


@dataclass(frozen=True, slots=True)
class TrainingByRound:
    """Local training that changes: `first` is the first round's, `later` has by name what changes, in all rounds."""

    first: Training
    later: Mapping[str, ByRound[Any]]


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
    **others: Any,
) -> Training | TrainingByRound:
    """Return the settings of local training: minibatch SGD on each phone (FedAvg: McMahan et al. 2017, 1602.05629).

    `lr` is the learning rate, `lr_decay` its factor after each round, `epochs` the passes of a phone over its examples
    in a round, `batch_size` the examples a step, or "all". `prox_mu` is the proximal term of FedProx (Li et al. 2020,
    1812.06127). Each but `lr_decay` may change by round: `epochs=[5, 1]` is 5 in round 1 and then 1, and
    `epochs={1: 5, 4: 1}` changes in round 4. `settings` are the problem's own, by name. `others` are what
    else `Training` has, by name. Raises `ConfigError` for a value of another type or out of its range.

    >>> SGD(0.05, epochs=2, settings={"shift": 1}).to_wire()
    [2, 10, 0.05, 1, 0, 0, 0, {'shift': 1}]
    """
    own = dict(settings or {})
    if not all(isinstance(name, str) for name in own):
        raise ConfigError(f"settings = {settings!r} are not settings by name, like {{'shift': 1}}")
    known = {each.name: each for each in fields(Training) if range_of(each)}
    refuse_unknown("SGD()", others, [*known, "settings"])
    spelled = {
        "lr": lr, "epochs": epochs, "batch_size": batch_size, "lr_decay": lr_decay, "momentum": momentum,
        "weight_decay": weight_decay, "prox_mu": prox_mu,
    }  # fmt: skip
    given = {name: _taken(known[name], value) for name, value in {**spelled, **others}.items()}
    rounds = {1, *(number for values in given.values() for number in values.later)}
    # All rounds' settings are made: one that is out of its range is refused here.
    trained = [
        Training(**{name: values.at(number) for name, values in given.items()}, set=own) for number in sorted(rounds)
    ]
    later = {name: values for name, values in given.items() if values.later}
    return TrainingByRound(trained[0], later) if later else trained[0]


def _taken(field: Field[Any], value: Any) -> ByRound[Any]:
    """Return a setting's value, or values by round, in its own kind."""
    if field.name == "lr_decay" or not is_by_round(value) or isinstance(value, str):
        return ByRound(_one(field, value))
    try:
        values = by_round(value)
    except ConfigError as error:
        raise ConfigError(f"{field.name} = {error}") from error
    return values.map(lambda each: _one(field, each))


def _one(field: Field[Any], value: Any) -> Any:
    limits = range_of(field)
    named = {name: number for number, name in ((limits.spelled if limits else None) or {}).items()}
    made = named.get(value, value) if isinstance(value, str) else value
    kinds = int if field.type is int else int | float
    if isinstance(made, bool) or not isinstance(made, kinds):
        words = "".join(f", and not {name!r}" for name in named)
        raise ConfigError(f"{field.name} = {value!r} is not {KINDS[int if field.type is int else float]}{words}")
    return made if field.type is int else float(made)
