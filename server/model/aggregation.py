"""The server's side of learning: what the sum of a round makes of the model. Nothing here waits."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.errors import ConfigError
from featherfed.partitions import largest_shard
from featherfed.problem import Place, Problem
from featherfed.problem_loading import load_problem
from featherfed.randomness import RoundKey
from featherfed.rules.checked import begun, combined, started, stepped
from featherfed.rules.ruleset import RuleSet
from featherfed.rules.server_optimizer import ServerState
from featherfed.server.config import RunConfig
from featherfed.server.leftover import mixed, parse_leftover, start
from featherfed.server.measures import Measures, Target, measures_of
from featherfed.server.model.averaging import averaged
from featherfed.server.model.evaluation_work import Evaluates, UnderWay, in_a_thread
from featherfed.server.model.model_file import PHONES, OtherModelError, after, read_model, titled, under, write_model
from featherfed.server.model.round_sum import RoundSum
from featherfed.server.model.run_model import Closing
from featherfed.server.model.run_rules import load_plugins, rules_of, uplinks_of
from featherfed.server.model.version_kinds import versions_of

if TYPE_CHECKING:
    from featherfed.learning.evaluation import Evaluation


MAX_EXAMPLES = 1 << 20
"""What an update may weigh where neither `--max-examples` nor the problem says it."""

OPTIMIZER, AGGREGATE = "optimizer.", "aggregate."
"""What the names of the rules' arrays begin with in a saved model."""
DRAWN = "drawn"
"""What the digest of drawn initial weights is called there."""


class Aggregator:
    """The `RunModel` of a server: a round's updates become one, the optimizer steps, the model is evaluated."""

    def __init__(
        self,
        config: RunConfig,
        data_dir: str | None,
        *,
        problem: Problem | None = None,
        rules: RuleSet | None = None,
        device: str = "cpu",
    ) -> None:
        """Load the problem and the rules that the configuration names, unless they are given, and try the problem.

        It is evaluated on a `device` of torch.
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
        self._place = place
        self._evaluator = evaluator_for(problem, place, module, device)
        self.evaluates: Evaluates = in_a_thread
        """Who evaluates a version: a simulation has its workers do it."""
        self.measures: Measures = measures_of(problem) if self._evaluator else ()
        if config.target:
            Target.parse(config.target).measure(self.measures)
        uplinks = uplinks_of(config)
        self.versions = versions_of(config.downlink, self.layout, config.seed)
        weights, self.initial = initial_weights(problem, config.seed, module)
        if problem.learner is not None:
            for uplink in uplinks.values:
                check_space(problem, uplink.space(self.layout, RoundKey(config.seed, 1)))
        # Phones draw it, or get it whole and in float32.
        self.versions.publish(weights)
        self._rules = rules or rules_of(config)
        self._state = begun(self._rules.server_optimizer, self.versions.view.copy())
        self._memory = started(self._rules.aggregate, self.layout.size)
        self._average = self._state.weights
        shared = problem.shared_examples(data_dir)
        most = config.max_examples or (
            MAX_EXAMPLES if shared is None else largest_shard(config.partition, shared, config.phones)
        )
        self.sum = RoundSum(config, uplinks, self.layout, self._rules.aggregate, max_examples=most)
        self.best_score = -math.inf

    @property
    def parameters(self) -> int:
        """Number of coordinates of the model."""
        return self.layout.size

    def close(self, round_number: int) -> Closing:
        """Step the optimizer by the round's update, and publish the next version.

        Raises `ProblemError` for a rule of the user's own that fails; nothing that is saved has changed then.
        """
        config, phones = self._config, self.sum.phones
        updates = self.sum.take_updates()
        if len(updates):
            remembered, mean = combined(self._rules.aggregate, self._memory, updates)
        else:
            remembered, mean = self._memory, np.zeros(self.layout.size, np.float32)
        del updates
        share = parse_leftover(config.leftover)
        begin = start(share, self._state, self.versions.view)
        self._state = mixed(share, self._state, stepped(self._rules.server_optimizer, begin, mean, round_number))
        del begin
        self._memory = remembered
        del mean
        self.versions.publish(self._state.weights)
        weights, memory = self._state.weights, config.server_average
        self._average = averaged(self._average, weights, self.versions.version, memory) if memory else weights
        due = round_number % config.eval_every == 0 or round_number == config.rounds
        return Closing(self.versions.version, due=due and self._evaluator is not None, phones=phones)

    def evaluation(self) -> UnderWay | None:
        """Begin to evaluate the newest version, the mean with `--server-average`; None without a test set."""
        return self.evaluates(self._evaluator, self._place, self._average) if self._evaluator else None

    def best_so_far(self, values: Mapping[str, float | None]) -> bool:
        """Note what a version was evaluated to; return whether none before was as good."""
        before, self.best_score = self.best_score, max(self.score(values), self.best_score)
        return self.best_score > before

    def score(self, values: Mapping[str, float | None]) -> float:
        """Return what the best model has most of, by the run's first measure; −∞ without one, or a value of it."""
        return self.measures[0].score(values.get(self.measures[0].name)) if self.measures else -math.inf

    def recall(self, evaluations: Iterable[Mapping[str, float | None]]) -> None:
        """Take what earlier rounds were evaluated to: the best of them is to be beaten."""
        self.best_score = max((self.score(values) for values in evaluations), default=-math.inf)

    def evaluate(self) -> "Evaluation | None":
        """Return what `evaluation` comes to; blocks."""
        return self._evaluator.evaluate(self._average) if self._evaluator else None

    def save(self, path: Path, *, note: str = "") -> None:
        """Write all that `restore` needs, as a safetensors file whose first tensors are the model's own."""
        others: dict[str, npt.NDArray[Any]] = {}
        if self._config.server_average:
            others["server.weights"] = self._state.weights
        for prefix, arrays in ((OPTIMIZER, self._state.arrays), (AGGREGATE, self._memory)):
            others |= under(prefix, arrays)
        if self.initial is not None:
            others[DRAWN] = np.frombuffer(self.initial.digest, np.uint8)
        if self.sum.circles is not None:
            others |= self.sum.circles.saved()
        others |= under(PHONES, self.versions.saved())
        title = titled(f"{self.problem}, version {self.versions.version}", note)
        write_model(path, self.layout, self._average, others, title=title)

    def restore(self, path: Path, version: int) -> None:
        """Go on with a saved model; raises `ConfigError` for a broken file, or one of another model."""
        from featherfed.learning.described import relative_with

        try:
            self._average, tensors = read_model(path, self.layout)
        except OtherModelError as error:
            # What a bare name like mnist stands for may have been another model in an earlier release.
            relative = relative_with(self._config.problem, error.tensors)
            way_out = f"say problem = {relative!r} in config.toml" if relative else "put the model that it had back"
            raise ConfigError(f"{error}; {way_out} to go on, or begin a new run") from error
        weights = tensors["server.weights"] if self._config.server_average else self._average
        self._state = ServerState(weights, after(OPTIMIZER, tensors))
        self._memory = after(AGGREGATE, tensors)
        drawn = tensors[DRAWN].tobytes() if DRAWN in tensors else b""
        if self.initial is not None and drawn != self.initial.digest:
            # The run began with others, of an earlier release or before the problem's file was edited.
            self.initial = None
        if self.sum.circles is not None:
            self.sum.circles.restore(tensors)
        self.versions.restore(version, after(PHONES, tensors))
