"""What a run has promised its phones of their noise: which of them follow a run that is resumed with less of it.

A phone that has been promised noise of Z though a share γ collude keeps both on its disk, and refuses a run that says
less of either (`edge_client/secrets.py`). It would leave without the server knowing why; so the server keeps them too.
"""

import json

from featherfed.errors import ConfigError
from featherfed.privacy.phones_noise import Promise
from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE
from featherfed.server.config import RunConfig
from featherfed.server.model.run_model import RunModel
from featherfed.server.privacy_plan import privacy_of
from featherfed.server.storage.circle_rows import keys
from featherfed.server.storage.privacy_rows import privacy_by_round
from featherfed.server.storage.store import Store, put_value

PROMISED = "promised"
CLOSE = 1e-9
"""A Z that is solved for again may differ by so much, relatively, and is taken for the same."""


def keep_promise(config: RunConfig, store: Store, model: RunModel) -> str | None:
    """Return what is to be said where a run promises less than before, and keep what it has promised.

    Raises `ConfigError` where too few phones are left who could follow.
    """
    plan = privacy_of(config)
    if plan is None:
        return None
    circles = model.sum.circles
    promise = None if circles is None else circles.promise
    if promise is not None:
        return _of_phones(config, store, promise)
    noted = privacy_by_round(store)
    before = noted[max(noted)].noise_multiplier if noted else 0.0
    if plan.noise_multiplier >= before * (1 - CLOSE):
        return None
    return (
        f"rounds from here on have noise of {plan.noise_multiplier:.4g} clip norms, and had {before:.4g} until round"
        f" {max(noted)}: {_causes(config)}; what was spent stays spent"
    )


def _of_phones(config: RunConfig, store: Store, promise: Promise) -> str | None:
    z, colluding = json.loads(store.values().get(PROMISED, "[0, 0]"))
    told, guests = len(keys(store)), config.phones
    if not told or (promise.noise_multiplier >= z and promise.colluding >= colluding):
        store.apply([put_value(PROMISED, json.dumps(promise.numbers))])
        return None
    now = f"noise of {promise.noise_multiplier:.4g} though {promise.colluding:g} of a circle collude"
    sentence = (
        f"{told} of {guests} phones were promised noise of {z:.4g} though {colluding:g} of a circle collude, and refuse"
        f" a run that says {now}: {_causes(config)}; noise_multiplier = {z!r} and colluding = {colluding:g} keep them"
    )
    if guests - told < max(config.min_updates, DEFAULT_LEAST_CIRCLE):
        raise ConfigError(f"{sentence}; the {guests - told} others are too few for a round")
    return sentence


def _causes(config: RunConfig) -> str:
    """Return which settings of config.toml the noise follows from."""
    if config.noise_multiplier:
        return f"config.toml has noise_multiplier = {config.noise_multiplier:g}"
    return f"it is solved from target_epsilon = {config.target_epsilon:g}, rounds and participations in config.toml"
