"""A problem on this phone: its own code, and a model that phones of one process train one at a time."""

from featherfed.edge_client.learner import SgdLearner, fingerprint_of
from featherfed.errors import ConfigError, ProblemError
from featherfed.problem import Examples, Place, Problem
from featherfed.problem_loading import is_installed, load_problem
from featherfed.training_settings import Training
from featherfed.user_code import blaming
from featherfed.wire.closing import readable
from featherfed.wire.messages import Welcome


def problem_named_by(welcome: Welcome) -> str:
    """Return the server's name for its problem, where this phone has its code installed.

    Raises `ConfigError` where it has not: code never travels, and a name from the wire is never imported.
    """
    if not is_installed(welcome.problem):
        raise ConfigError(
            f"the run's problem is {welcome.problem!r}, whose code does not travel; name your copy of it, like"
            " --problem ./mytask.py:problem"
        )
    return welcome.problem


class LocalProblem:
    """Learners of one problem that share all but their examples; their trainings must take turns."""

    def __init__(self, name: str, device: str, problem: Problem | None = None) -> None:
        """Make it for a device of torch; `problem` is what the name stands for, where it is here already.

        Raises `ConfigError` or `ProblemError` for a problem that cannot be had or learned.
        """
        # torch takes seconds to import: only phones that train pay for it.
        from featherfed.learning.flat import FlatModel
        from featherfed.learning.models import build, fingerprint

        self._name, self._device = name, device
        self.problem = problem or load_problem(name)
        module = build(self.problem, 0)
        self.fingerprint = fingerprint(module)
        self._model = FlatModel(module, device)

    def prepare(self, data_dir: str | None) -> None:
        """See that this problem's data can be had; raises `DataError`, or `ProblemError` for a fault in its file."""
        if self.problem.prepare is not None:
            with blaming(f"problem {self.problem.name}: prepare() fails"):
                self.problem.prepare(data_dir)

    def learner(self, welcome: Welcome, data_dir: str | None, *, tried: bool = False) -> SgdLearner:
        """Return the learner of one shard, after a step on its first examples, unless these were `tried` before.

        Raises `ProblemError` where this problem is not the server's, has no examples for this shard, or does not fit
        together.
        """
        from featherfed.learning.dry_step import dry_step
        from featherfed.learning.own_training import trainer_for

        theirs = fingerprint_of(welcome)
        if theirs.digest != self.fingerprint.digest:
            raise ProblemError(
                f"--problem {self._name} is not the run's problem {readable(welcome.problem)}:"
                f" {self.fingerprint.difference(theirs)}"
            )
        place = Place(
            index=welcome.shard, of=welcome.shards, seed=welcome.seed, partition=welcome.partition, data_dir=data_dir,
            settings=self.problem.settings_with(Training.from_wire(welcome.training).set),
        )  # fmt: skip
        with blaming(f"problem {self.problem.name}: examples() fails", self.problem.examples):
            examples = self.problem.examples(place)
            if not isinstance(examples, Examples):
                raise ProblemError(f"it returns a {type(examples).__name__}, and no ff.Examples")
            if len(examples) == 0:
                raise ProblemError(f"there are no examples for shard {place.index} of {place.of} on this phone")
        if not tried:
            dry_step(self.problem, examples, self._model)
        return SgdLearner(welcome, trainer_for(self.problem, examples, self._device, self._model))
