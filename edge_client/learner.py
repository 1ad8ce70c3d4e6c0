"""The phone's side of learning: its shard, and an update for each task. Blocking; the phone calls it off its loop."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from featherfed.codec.clip import clip
from featherfed.edge_client.round_settings import RunSettings
from featherfed.errors import ConfigError
from featherfed.fingerprint import Fingerprint
from featherfed.randomness import RoundKey
from featherfed.wire.messages import Task, Welcome, tensor_rows

if TYPE_CHECKING:
    from featherfed.learning.own_training import OwnTrainer
    from featherfed.learning.training import LocalUpdate, Trainer
    from featherfed.training_settings import Training

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trained:
    """An update ready to send. `loss` is the mean of the last epoch, NaN where nothing was trained.

    One that is summed before it is decoded has no payload yet, but the `coordinates` that were trained, for the spec
    `uplink`.
    """

    payload: bytes
    residual: F32 | None
    examples: int
    steps: int
    loss: float
    coordinates: F32 | None = None
    uplink: str = ""


class Learner(Protocol):
    """Trains on one shard."""

    examples: int

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return the update for a task, or None if `stopped()` became true meanwhile."""


def fingerprint_of(welcome: Welcome) -> Fingerprint:
    """Return the run's model as a Welcome with all of its tensors describes it."""
    return Fingerprint.of_rows(tensor_rows(welcome.tensors))


def _clipped(coordinates: F32, welcome: Welcome) -> F32:
    """Return an update of at most the norm that the server asks for: it clips longer ones again, once decoded."""
    return clip(coordinates, welcome.clip or math.inf)


class NoiseLearner:
    """Returns seeded noise in place of an update: everything but the training, and no torch."""

    def __init__(self, welcome: Welcome) -> None:
        self._welcome, self._layout = welcome, fingerprint_of(welcome).layout
        self._settings = RunSettings(welcome)
        self.examples = 1

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return noise, compressed as the task says."""
        from featherfed.learning.noise import noise_update

        layout, key = self._layout, RoundKey(self._welcome.seed, task.round, self._welcome.shard)
        pipeline = self._settings.in_round(task).uplink
        noise = noise_update(pipeline.space(layout, key).size, key)
        if pipeline.summed:
            return Trained(b"", None, self.examples, 0, float("nan"), noise, str(pipeline))
        encoded = pipeline.encode(_clipped(noise, self._welcome), layout, key, residual)
        return Trained(encoded.payload, encoded.state, self.examples, 0, float("nan"))


def import_torch(device: str) -> None:
    """Import what `SgdLearner` needs: seconds, which a phone spends before it joins and not in its first round.

    Raises `ConfigError` for a device that torch does not have here.
    """
    import torch

    import featherfed.learning.training  # noqa: F401

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, and torch finds no CUDA device here; leave it out to train on the CPU")


class SgdLearner:
    """Trains the run's model on this phone's shard, by SGD or by the problem's own learner."""

    def __init__(self, welcome: Welcome, trainer: "Trainer | OwnTrainer") -> None:
        self.welcome = welcome
        """Who this learner is: its run, shard and settings."""
        self._layout = fingerprint_of(welcome).layout
        self._settings = RunSettings(welcome)
        self.trainer = trainer
        self.examples = trainer.examples

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return the compressed update of local training."""
        asked, key = self._settings.in_round(task), self.key(task)
        space = asked.uplink.space(self._layout, key)
        update = self.trainer.train(weights, asked.training, key, space, stopped=stopped)
        return None if update is None else self.encoded(update, task, residual)

    def key(self, task: Task) -> RoundKey:
        """Return what all that is random in this phone's work for a task comes from."""
        return RoundKey(self.welcome.seed, task.round, self.welcome.shard)

    def plain_training(self, task: Task) -> "Training | None":
        """Return how a task trains, where that is by our SGD on all weights; None where it is in any other way."""
        from featherfed.learning.training import Trainer

        asked = self._settings.in_round(task)
        plain = isinstance(self.trainer, Trainer) and asked.uplink.space(self._layout, self.key(task)).identity
        return asked.training if plain else None

    def encoded(self, update: "LocalUpdate", task: Task, residual: F32 | None) -> Trained:
        """Return an update that was trained for a task as it is sent."""
        pipeline = self._settings.in_round(task).uplink
        if pipeline.summed:
            return Trained(b"", None, update.examples, update.steps, update.loss, update.coordinates, str(pipeline))
        clipped = _clipped(update.coordinates, self.welcome)
        encoded = pipeline.encode(clipped, self._layout, self.key(task), residual)
        return Trained(encoded.payload, encoded.state, update.examples, update.steps, update.loss)
