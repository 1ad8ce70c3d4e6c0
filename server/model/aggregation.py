"""The server's side of learning: fold updates as they come, step the optimizer, evaluate. Nothing here waits.

Updates are folded on arrival because memory must not grow with the cohort; the sum is exact (featherfed.codec), so the
order of arrival does not matter. Only for an aggregate that needs all of them are a round's updates kept
(`kept_updates`).
"""

import math
from collections.abc import Mapping, Sequence
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
from featherfed.rules.aggregate import Arrays, Updates
from featherfed.rules.checked import begun, combined, started, stepped, weighed
from featherfed.rules.ruleset import RuleSet
from featherfed.rules.server_optimizer import ServerState
from featherfed.server.config import RunConfig
from featherfed.server.measures import Measures, Target, figures, measures_of
from featherfed.server.model.averaging import averaged
from featherfed.server.model.kept_updates import KeptUpdates
from featherfed.server.model.run_rules import load_plugins, rules_of
from featherfed.server.model.staleness import UNIT, stale_weight
from featherfed.server.model.versions import Versions

if TYPE_CHECKING:
    from featherfed.learning.evaluation import Evaluation


MAX_EXAMPLES = 1 << 20
"""What an update may weigh where neither `--max-examples` nor the problem says it."""

OPTIMIZER, AGGREGATE = "optimizer.", "aggregate."
"""What the names of the rules' arrays begin with in a saved model."""


def _after(prefix: str, tensors: Arrays) -> Arrays:
    """Return the tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True, slots=True)
class Closing:
    """What a round's close gave."""

    version: int
    evaluation: "Evaluation | None"
    best: bool
    over: bool = False
    """Whether the run ends here, whatever its target: a gateway's root has said so."""
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

    def __init__(
        self,
        config: RunConfig,
        data_dir: str | None,
        *,
        problem: Problem | None = None,
        rules: RuleSet | None = None,
    ) -> None:
        """Load the problem and the rules that the configuration names, unless they are given, and try the problem.

        Raises `ConfigError`, `ProblemError` or `DataError` for a problem that no round could be served of.
        """
        # torch: 170 MB and seconds that a gateway, which evaluates nothing, does not have to spend.
        from featherfed.learning.evaluation import evaluator_for
        from featherfed.learning.initial_draws import initial_weights
        from featherfed.learning.models import build, fingerprint
        from featherfed.learning.own_training import check_space

        self._config = config
        load_plugins(config)
        problem = problem or load_problem(config.problem)
        self.problem = problem.name
        place = Place(
            of=config.phones, seed=config.seed, partition=config.partition, data_dir=data_dir,
            settings=problem.settings_with(config.set),
        )  # fmt: skip
        module = build(problem, 0)
        self.fingerprint = fingerprint(module)
        self.layout: Layout = self.fingerprint.layout
        self._evaluator = evaluator_for(problem, place, module)
        self.measures: Measures = measures_of(problem) if self._evaluator else ()
        if config.target:
            Target.parse(config.target).measure(self.measures)
        self.uplink = Pipeline.parse(config.uplink)
        downlink = Pipeline.parse(config.downlink, direction="downlink")
        self.versions = Versions(self.layout, downlink, config.seed)
        weights, self.initial = initial_weights(problem, config.seed, module)
        if problem.learner is not None:
            check_space(problem, self.uplink.space(self.layout, RoundKey(config.seed, 1)))
        # Phones draw it, or get it whole and in float32.
        self.versions.restore(0, weights, {})
        self._rules = rules or rules_of(config)
        self._state = begun(self._rules.server_optimizer, self.versions.view.copy())
        self._memory = started(self._rules.aggregate, self.layout.size)
        self._average = self._state.weights
        shared = problem.shared_examples(data_dir)
        self._set_limits(
            config.max_examples
            or (MAX_EXAMPLES if shared is None else largest_shard(config.partition, shared, config.phones))
        )
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
        if self._rules.aggregate.needs_all:
            self._fold = KeptUpdates(self.uplink, self.layout, clip_norm=clip_norm)
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
            self._fresh_weight += UNIT * sum(weighed(self._rules.aggregate, update.examples) for update in counted)
        return faults

    def _add_one(self, update: Received) -> CodecError | None:
        if self._fold is None:
            return CodecError(f"round {update.round_number} is not open")
        try:
            if isinstance(self._fold, Fold):
                # A gateway's: it has its weight in it, whatever is claimed beside it.
                self._fold.merge_bytes(update.payload)
            else:
                self._fold.add(update.payload, self._key(update), self._weight(update))
        except CodecError as error:
            return error
        return None

    def _key(self, update: Received) -> RoundKey:
        return RoundKey(self._config.seed, update.round_number, update.shard)

    def _weight(self, update: Received) -> int:
        weight = weighed(self._rules.aggregate, update.examples)
        return stale_weight(weight, self.open_round - update.round_number) if self._buffered else weight

    def close(self, round_number: int) -> Closing:
        """Step the optimizer by the round's update, publish the next version, evaluate where it is due.

        Raises `ProblemError` for a rule of the user's own that fails; nothing that is saved has changed then.
        """
        config = self._config
        assert self._fold is not None, "a round is closed once, after it was opened"
        phones = self._fold.count if config.gateways and isinstance(self._fold, Fold) else None
        updates = self._updates(round_number)
        # What is as long as the model goes as soon as it is not needed: the round's peak is here.
        self._fold = None
        if len(updates):
            remembered, mean = combined(self._rules.aggregate, self._memory, updates)
        else:
            remembered, mean = self._memory, np.zeros(self.layout.size, np.float32)
        del updates
        self._state = stepped(self._rules.server_optimizer, self._state, mean, round_number)
        self._memory = remembered
        del mean
        self.versions.publish(self._state.weights)
        weights, memory = self._state.weights, config.server_average
        self._average = averaged(self._average, weights, self.versions.version, memory) if memory else weights
        due = round_number % config.eval_every == 0 or round_number == config.rounds
        evaluation = self.evaluate() if due else None
        score = -math.inf if evaluation is None else self.score(figures(evaluation.loss, evaluation.metrics))
        best = score > self.best_score
        self.best_score = max(score, self.best_score)
        return Closing(self.versions.version, evaluation, best, phones=phones)

    def score(self, values: Mapping[str, float | None]) -> float:
        """Return what the best model has most of, by the run's first measure; −∞ without one, or a value of it."""
        return self.measures[0].score(values.get(self.measures[0].name)) if self.measures else -math.inf

    def _updates(self, round_number: int) -> Updates:
        """Return what the aggregate is given: all updates of the round, or their mean alone."""
        assert self._fold is not None
        key = RoundKey(self._config.seed, round_number)
        if isinstance(self._fold, KeptUpdates):
            return self._fold.updates(key)
        if not self._fold.count:
            return Updates([], [], [], key)
        mean = self._fold.mean()
        if self._buffered:
            mean *= np.float32(self._fold.weight / self._fresh_weight)
        return Updates([mean], [self._fold.weight], [], key)

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
        for prefix, arrays in ((OPTIMIZER, self._state.arrays), (AGGREGATE, self._memory)):
            tensors |= {prefix + name: np.ascontiguousarray(array) for name, array in arrays.items()}
        tensors["phones.view"] = self.versions.view
        if self.initial is not None:
            tensors["phones.drawn"] = np.frombuffer(self.initial.digest, np.uint8)
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
        self._state = ServerState(weights, _after(OPTIMIZER, tensors))
        self._memory = _after(AGGREGATE, tensors)
        drawn = tensors.get("phones.drawn", np.zeros(0, np.uint8)).tobytes()
        if self.initial is not None and drawn != self.initial.digest:
            # The run began with others, of an earlier release or before the problem's file was edited.
            self.initial = None
        prefix = "phones.chain."
        chain = {int(name.removeprefix(prefix)): t.tobytes() for name, t in tensors.items() if name.startswith(prefix)}
        self.versions.restore(version, tensors["phones.view"], chain)
