"""The server's side of learning: fold updates as they come, step the optimizer, evaluate. Nothing here waits.

Updates are folded on arrival because memory must not grow with the cohort; the sum is exact (featherfed.codec), so the
order of arrival does not matter. Only the robust aggregates keep a round's updates (`robust`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from featherfed.codec.exact_sum import partial_sum_bytes
from featherfed.codec.fold import Fold, Update
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError, ConfigError
from featherfed.partitions import largest_shard
from featherfed.problem import Place, Problem
from featherfed.problem_loading import load_problem
from featherfed.randomness import RoundKey
from featherfed.server import optimizer
from featherfed.server.averaging import averaged
from featherfed.server.config import RunConfig
from featherfed.server.robust import KeptUpdates, parse_aggregate
from featherfed.server.staleness import UNIT, stale_weight
from featherfed.server.versions import Versions

if TYPE_CHECKING:
    from featherfed.learning.evaluation import Evaluation


MAX_EXAMPLES = 1 << 20
"""What an update may weigh where neither `--max-examples` nor the problem says it."""


def score_of(loss: float, accuracy: float | None) -> float:
    """Return what the best model has most of: accuracy, or where there is none, the least loss."""
    return -loss if accuracy is None else accuracy


@dataclass(frozen=True, slots=True)
class Closing:
    """What a round's close gave."""

    version: int
    evaluation: "Evaluation | None"
    best: bool
    over: bool = False
    """Whether the run ends here, whatever the accuracy: a gateway's root has said so."""
    following: int = 0
    """The next round, where it is not the one after."""
    phones: int | None = None
    """How many updates are in the sums of gateways, at their root."""


@dataclass(frozen=True, slots=True)
class Received:
    """An update whose bytes are all here, and how many examples its phone says that it has seen."""

    round_number: int
    shard: int
    payload: bytes
    examples: int


class Aggregator:
    """The model of a run, its versions on the phones, and the sum of the open round."""

    def __init__(self, config: RunConfig, data_dir: str | None, *, problem: Problem | None = None) -> None:
        """Load the problem that the configuration names, unless it is given, and try it on its test set.

        Raises `ConfigError`, `ProblemError` or `DataError` for a problem that no round could be served of.
        """
        # torch: 170 MB and seconds that a gateway, which evaluates nothing, does not have to spend.
        from featherfed.learning.evaluation import evaluator_for
        from featherfed.learning.models import build, fingerprint
        from featherfed.learning.own_training import check_space

        self._config = config
        problem = problem or load_problem(config.problem)
        self.problem = problem.name
        place = Place(
            of=config.phones, seed=config.seed, partition=config.partition, data_dir=data_dir,
            settings=problem.settings_with(config.set),
        )  # fmt: skip
        model = build(problem, config.seed)
        module = build(problem, 0)
        self.fingerprint = fingerprint(module)
        self.layout: Layout = self.fingerprint.layout
        self._evaluator = evaluator_for(problem, place, module)
        measures = {**{name: each.higher_is_better for name, each in problem.measures.items()}, "loss": False}
        self.measures = [{"name": name, "higher_is_better": higher} for name, higher in measures.items()]
        self.uplink = Pipeline.parse(config.uplink)
        downlink = Pipeline.parse(config.downlink, direction="downlink")
        self.versions = Versions(self.layout, downlink, config.seed)
        learned = [p.detach().numpy().ravel() for p in model.parameters() if p.requires_grad]
        weights = np.concatenate(learned).astype(np.float32)
        if problem.learner is not None:
            check_space(problem, self.uplink.space(self.layout, RoundKey(config.seed, 1)))
        self.versions.publish(weights)
        # Training starts from what the phones see, so a lossy first downlink costs no accuracy later.
        self._state = optimizer.start(self.versions.view.copy(), config.server_optimizer)
        self._average = self._state.weights
        shared = problem.training_examples
        self._set_limits(
            config.max_examples
            or (MAX_EXAMPLES if shared is None else largest_shard(config.partition, shared, config.phones))
        )
        self._trim = parse_aggregate(config.aggregate)
        self._fold: Fold | KeptUpdates | None = None
        self._buffered = config.mode == "async"
        self._fresh_weight = 0
        self.open_round = 0
        self.best_score = -math.inf

    @property
    def parameters(self) -> int:
        """Number of coordinates of the model."""
        return self.layout.size

    def _set_limits(self, phone_examples: int) -> None:
        """Say how large an update is by formula, how large it can be, and how much it can weigh."""
        config = self._config
        self.theory_bytes = round(self.uplink.theory_bytes(self.layout))
        self.max_update_bytes = self.uplink.max_bytes(self.layout)
        self.phone_examples = self.max_examples = phone_examples
        if config.gateways:
            # What comes is an exact partial sum of many phones' updates; it has its weight in it.
            self.theory_bytes = self.max_update_bytes = partial_sum_bytes(self.layout.size)

    def open(self, round_number: int) -> None:
        """Begin the sum of a round."""
        self.open_round = round_number
        clip_norm = self._config.clip_norm or math.inf
        if self._trim:
            self._fold = KeptUpdates(self.uplink, self.layout, trim=self._trim, clip_norm=clip_norm)
        else:
            key = None if self._buffered else RoundKey(self._config.seed, round_number)
            self._fresh_weight = 0
            self._fold = self.uplink.fold(self.layout, key, updates=self._config.phones, clip_norm=clip_norm)

    def add(self, round_number: int, shard: int, payload: bytes, examples: int) -> None:
        """Decode an update and add it to the sum; raises `CodecError` and leaves the sum alone if it is not valid."""
        (fault,) = self.add_all([Received(round_number, shard, payload, examples)])
        if fault is not None:
            raise fault

    def add_all(self, updates: Sequence[Received]) -> list[CodecError | None]:
        """Decode updates and add them to the sum; return for each what is wrong with it: such a one is left out."""
        if not isinstance(self._fold, Fold) or self._config.gateways:
            return [self._add_one(update) for update in updates]
        weights = [self._weight(update) for update in updates]
        faults = self._fold.add_all(
            [Update(update.payload, self._key(update), weight) for update, weight in zip(updates, weights, strict=True)]
        )
        if self._buffered:
            counted = (update for update, fault in zip(updates, faults, strict=True) if fault is None)
            self._fresh_weight += UNIT * sum(update.examples for update in counted)
        return faults

    def _add_one(self, update: Received) -> CodecError | None:
        if self._fold is None:
            return CodecError(f"round {update.round_number} is not open")
        try:
            if isinstance(self._fold, Fold):
                # A gateway's: it has its weight in it, whatever is claimed beside it.
                self._fold.merge_bytes(update.payload)
            else:
                self._fold.add(update.payload, self._key(update), update.examples)
        except CodecError as error:
            return error
        return None

    def _key(self, update: Received) -> RoundKey:
        return RoundKey(self._config.seed, update.round_number, update.shard)

    def _weight(self, update: Received) -> int:
        if not self._buffered:
            return update.examples
        return stale_weight(update.examples, self.open_round - update.round_number)

    def close(self, round_number: int) -> Closing:
        """Step the optimizer by the mean update, publish the next version, evaluate where it is due."""
        config = self._config
        assert self._fold is not None, "a round is closed once, after it was opened"
        mean = self._fold.mean()
        if isinstance(self._fold, Fold) and self._buffered:
            mean *= np.float32(self._fold.weight / self._fresh_weight)
        phones = self._fold.count if config.gateways and isinstance(self._fold, Fold) else None
        # What is as long as the model goes as soon as it is not needed: the round's peak is here.
        self._fold = None
        self._state = optimizer.step(self._state, mean, optimizer=config.server_optimizer, lr=config.server_lr)
        del mean
        self.versions.publish(self._state.weights)
        weights, memory = self._state.weights, config.server_average
        self._average = averaged(self._average, weights, self.versions.version, memory) if memory else weights
        due = round_number % config.eval_every == 0 or round_number == config.rounds
        evaluation = self.evaluate() if due else None
        score = None if evaluation is None else score_of(evaluation.loss, evaluation.metrics.get("accuracy"))
        best = score is not None and score > self.best_score
        if score is not None and best:
            self.best_score = score
        return Closing(self.versions.version, evaluation, best, phones=phones)

    def evaluate(self) -> "Evaluation | None":
        """Return loss and metrics of the server's model, the mean with `--server-average`; None without a test set."""
        return self._evaluator.evaluate(self._average) if self._evaluator else None

    def save(self, path: Path) -> None:
        """Write all that `restore` needs, as a safetensors file whose first tensors are the model's own."""
        tensors = {
            f"model.{tensor.name}": np.ascontiguousarray(self._average[place].reshape(tensor.shape))
            for tensor, place in self.layout.slices()
        }
        if self._config.server_average:
            tensors["server.weights"] = self._state.weights
        tensors["server.momentum"] = self._state.momentum
        tensors["server.variance"] = self._state.variance
        tensors["phones.view"] = self.versions.view
        for version, payload in self.versions.chain.items():
            tensors[f"phones.chain.{version}"] = np.frombuffer(payload, np.uint8)
        # One entry: safetensors writes several in an order of their own, and equal models shall be equal files.
        # Straight from the tensors to the file: its bytes would be two more of each.
        save_file(tensors, path, metadata={"model": f"{self.problem}, version {self.versions.version}"})

    def restore(self, path: Path, version: int) -> None:
        """Go on with a saved model."""
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"cannot read the model {path}: {error}") from error
        self._average = np.concatenate([tensors[f"model.{tensor.name}"].ravel() for tensor in self.layout.tensors])
        weights = tensors["server.weights"] if self._config.server_average else self._average
        self._state = optimizer.ServerState(weights, tensors["server.momentum"], tensors["server.variance"])
        prefix = "phones.chain."
        chain = {int(name.removeprefix(prefix)): t.tobytes() for name, t in tensors.items() if name.startswith(prefix)}
        self.versions.restore(version, tensors["phones.view"], chain)
