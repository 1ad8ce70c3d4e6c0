"""The gateway as its root sees it: a phone whose training is a round of phones, and whose update is their exact sum."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.learner import Trained
from featherfed.edge_client.phone_state import PhoneState
from featherfed.edge_client.round_settings import RunSettings
from featherfed.errors import LocalError
from featherfed.gateway.round_exchange import News, RoundExchange
from featherfed.server.config import RunConfig
from featherfed.training_settings import Training, flag
from featherfed.wire.messages import Task, Welcome

F32 = npt.NDArray[np.float32]


class GatewayState(PhoneState):
    """A phone's state that remembers in which bytes the last models came."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        kept = self._read("arrived", differences=list) or {"differences": []}
        self._arrived: list[tuple[int, bytes]] = [(version, difference) for version, difference in kept["differences"]]

    def hold(self, version: int, weights: F32, initial: F32 | None = None, difference: bytes = b"") -> None:
        """Keep a model that arrived whole, and what came of it last."""
        # First: a gateway that is killed between the two asks for the same bytes again. Until then it holds the one
        # before, whose difference its phones may still need.
        self._arrived = [*self._arrived[-1:], (version, difference)]
        self._save("arrived", {"differences": self._arrived})
        super().hold(version, weights, initial, difference)

    def arrived(self, version: int) -> bytes:
        """Return the difference that a version ended with, or nothing where that is not known any more."""
        return dict(self._arrived).get(version, b"")


class GatewayLearner:
    """Trains by having phones train."""

    examples = 1
    """The sum has its weight in it."""

    def __init__(self, welcome: Welcome, config: RunConfig, exchange: RoundExchange, phone_state: GatewayState) -> None:
        """Raises `LocalError` where the root's run is not the one that this gateway was started for."""
        for name in ("partition", "seed"):
            _agree(name, getattr(welcome, name), getattr(config, name))
        self._settings = RunSettings(welcome)
        self._config, self._exchange, self._phone_state = config, exchange, phone_state

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return the sum of the phones' updates."""
        asked = self._settings.in_round(task)
        _agree("uplink", str(asked.uplink), str(Pipeline.parse(self._config.uplink_at(task.round))))
        theirs, ours = asked.training, self._config.training(task.round).in_round(task.round)
        for field in fields(Training):
            _agree(field.name, getattr(theirs, field.name), getattr(ours, field.name))
        state = self._phone_state
        news = News(task.round, weights, state.initial, state.arrived(task.round - 1), task.steps, task.life)
        total = self._exchange.ask(news, stopped)
        return None if total is None else Trained(total, None, self.examples, 0, float("nan"))


def _agree(name: str, theirs: object, ours: object) -> None:
    if theirs != ours:
        raise LocalError(f"the root runs with {flag(name)} {theirs}, this gateway with {ours}; start both alike")
