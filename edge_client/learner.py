"""The phone's side of learning: its shard, and an update for each task. Blocking; the phone calls it off its loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError
from featherfed.learning.names import LAYOUTS
from featherfed.randomness import RoundKey
from featherfed.wire.messages import Task, Welcome

if TYPE_CHECKING:
    from featherfed.learning.training import Trainer

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trained:
    """An update ready to send. `loss` is the mean of the last epoch, NaN where nothing was trained."""

    payload: bytes
    residual: F32 | None
    examples: int
    steps: int
    loss: float


class Learner(Protocol):
    """Trains on one shard."""

    examples: int

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return the update for a task, or None if `stopped()` became true meanwhile."""


class NoiseLearner:
    """Returns seeded noise in place of an update: everything but the training, and no torch."""

    def __init__(self, welcome: Welcome) -> None:
        if welcome.model not in LAYOUTS:
            raise ConfigError(f"the server's model {welcome.model!r} is unknown to this phone")
        self._welcome = welcome
        self.examples = 1

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return noise, compressed as the task says."""
        from featherfed.learning.noise import noise_update

        layout, key = LAYOUTS[self._welcome.model], RoundKey(self._welcome.seed, task.round, self._welcome.shard)
        pipeline = Pipeline.parse(task.uplink)
        noise = noise_update(pipeline.space(layout, key).size, key)
        encoded = pipeline.encode(noise, layout, key, residual)
        return Trained(encoded.payload, encoded.state, self.examples, 0, float("nan"))


def import_torch(device: str) -> None:
    """Import what `SgdLearner` needs: seconds, which a phone spends before it joins and not in its first round.

    Raises `ConfigError` for a device that torch does not have here.
    """
    import torch

    import featherfed.learning.data
    import featherfed.learning.training  # noqa: F401

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, and torch finds no CUDA device here; leave it out to train on the CPU")


def check_data(data_dir: str) -> None:
    """Raise `DataError` for a folder without MNIST; after `import_torch`, and before the phone joins."""
    from featherfed.learning.data import check_folder

    check_folder(data_dir)


class SgdLearner:
    """Trains the server's model on this phone's shard."""

    def __init__(self, welcome: Welcome, trainer: "Trainer") -> None:
        self._welcome = welcome
        self._trainer = trainer
        self.examples = trainer.examples

    @classmethod
    def load(cls, welcome: Welcome, data_dir: str | None, device: str) -> "SgdLearner":
        """Return the learner of the shard that the server gave."""
        # torch takes seconds to import: only a phone that trains pays for it.
        from featherfed.learning.data import load_shard
        from featherfed.learning.training import Trainer

        examples = load_shard(welcome.data, data_dir, welcome.partition, welcome.shards, welcome.shard, welcome.seed)
        return cls(welcome, Trainer(welcome.model, examples, device))

    def train(self, weights: F32, task: Task, residual: F32 | None, stopped: Callable[[], bool]) -> Trained | None:
        """Return the compressed update of local SGD."""
        from featherfed.learning.training import TrainingSettings

        layout, key = LAYOUTS[self._welcome.model], RoundKey(self._welcome.seed, task.round, self._welcome.shard)
        pipeline = Pipeline.parse(task.uplink)
        settings = TrainingSettings(
            epochs=task.epochs,
            batch_size=task.batch_size,
            lr=task.lr,
            momentum=task.momentum,
            weight_decay=task.weight_decay,
            prox_mu=task.prox_mu,
            shift=task.shift,
        )
        update = self._trainer.train(weights, settings, key, pipeline.space(layout, key), stopped=stopped)
        if update is None:
            return None
        encoded = pipeline.encode(update.coordinates, layout, key, residual)
        return Trained(encoded.payload, encoded.state, update.examples, update.steps, update.loss)
