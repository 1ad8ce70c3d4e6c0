"""How the phones of an experiment train: settings as a value, named as the field names it."""

from collections.abc import Mapping

from featherfed.errors import ConfigError
from featherfed.keywords import only_known
from featherfed.training_settings import Training, Value


@only_known
def SGD(
    lr: float = 0.1,
    *,
    epochs: int = 1,
    batch_size: int | str = 10,
    lr_decay: float = 1.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    prox_mu: float = 0.0,
    settings: Mapping[str, Value] | None = None,
) -> Training:
    """Return the settings of local training: minibatch SGD on each phone (FedAvg: McMahan et al. 2017, 1602.05629).

    `lr` is the learning rate of the first round and `lr_decay` its factor after each, `epochs` the passes of a phone
    over its examples in a round, `batch_size` the examples a step, or "all". `prox_mu` is the proximal term of FedProx
    (Li et al. 2020, 1812.06127). `settings` are the problem's own, by name. Raises `ConfigError` for a value of another
    type or out of its range.

    >>> SGD(0.05, epochs=2, settings={"shift": 1}).to_wire()
    [2, 10, 0.05, 1, 0, 0, 0, {'shift': 1}]
    """
    numbers = {"lr": lr, "lr_decay": lr_decay, "momentum": momentum, "weight_decay": weight_decay, "prox_mu": prox_mu}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} = {value!r} is not a number")
    size = 0 if batch_size == "all" else batch_size
    if isinstance(epochs, bool) or not isinstance(epochs, int):
        raise ConfigError(f"epochs = {epochs!r} is not a whole number")
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(f"batch_size = {batch_size!r} is not a whole number, and not 'all'")
    own = dict(settings or {})
    if not all(isinstance(name, str) for name in own):
        raise ConfigError(f"settings = {settings!r} are not settings by name, like {{'shift': 1}}")
    return Training(epochs=epochs, batch_size=size, set=own, **{name: float(value) for name, value in numbers.items()})
