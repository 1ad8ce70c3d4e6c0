"""A problem: a model, the data of each phone, a test set, a loss and metrics, all from a file of the user's own.

    problem = ff.Problem(model, examples=examples, test=test, loss=cross_entropy, metrics={"accuracy": ff.accuracy})

Nothing here imports torch: a server's flags, a gateway and a phone without training can name a problem without it.
"""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import numpy.typing as npt

from featherfed.errors import ConfigError, DataError, ProblemError
from featherfed.partitions import Indices, partition_counts, partition_labels
from featherfed.training_settings import Setting, Training, Value, checked
from featherfed.user_code import blaming

if TYPE_CHECKING:
    import torch
    from torch import nn

    Inputs = torch.Tensor | tuple[torch.Tensor, ...]
    MetricFunction = Callable[[Any, torch.Tensor], torch.Tensor | float]
    Change = Callable[[Any, np.random.Generator], Inputs]
    Augment = Callable[[Mapping[str, Value]], Change | None]

F32 = npt.NDArray[np.float32]
MAX_NAME = 64
"""Characters of the longest name of a metric or setting."""
COLUMNS = frozenset(
    ("loss", "metrics", "round", "state", "cohort", "accepted", "late", "failed", "seconds", "ended_s", "uplink",
     "downlink", "socket", "handshake", "strategy", "seed", "run")
)  # fmt: skip
"""What a report has for every round, in rows where the metrics stand beside it by their names."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a phone is in its run: shard `index` of `of`, counted from 0.

    `seed` is the run's and `partition` its `--partition`; `data_dir` is what this end was given with `--data-dir`
    (None: nothing), and `settings` are the problem's own, with those of `--set`. The same place gives the same
    examples.
    """

    index: int = 0
    of: int = 1
    seed: int = 0
    partition: str = "iid"
    data_dir: str | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs and targets whose first dimension is the examples.

    `inputs` is a tensor, or a tuple of tensors for a model with several arguments; `targets` is a tensor as the loss
    wants it. Raises `DataError` where their lengths differ.
    """

    inputs: "Inputs"
    targets: "torch.Tensor"

    def __post_init__(self) -> None:
        for tensor in (*self.parts, self.targets):
            if not hasattr(tensor, "index_select"):
                raise DataError(f"examples are tensors, and {type(tensor).__name__} is none; torch.as_tensor makes one")
            if tensor.dim() == 0:
                raise DataError("examples are tensors whose first dimension counts them, and one has no dimension")
        lengths = [len(tensor) for tensor in (*self.parts, self.targets)]
        if len({*lengths}) != 1:
            raise DataError(f"examples have {lengths[-1]} targets for inputs of {lengths[0]}")

    @property
    def parts(self) -> "tuple[torch.Tensor, ...]":
        """The arguments of the model."""
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class Metric:
    """A named figure of the test set, and which way is better.

    `function(outputs, targets)` is called for batches of the test set and returns either a value for each example (its
    first dimension), or one number, the batch's mean; the figure is the mean over all examples. One that is no mean of
    examples (an F1 score, a median) is `whole`: it is called once, with the outputs of the whole test set.
    """

    function: "MetricFunction"
    higher_is_better: bool = True
    whole: bool = False
    fraction: bool = False
    """From 0 to 1: people are shown it as a percentage."""

    def __call__(self, outputs: Any, targets: "torch.Tensor") -> "torch.Tensor | float":
        """Return what the function says."""
        return self.function(outputs, targets)


@overload
def metric(
    function: "MetricFunction", *, higher_is_better: bool = True, whole: bool = False, fraction: bool = False
) -> Metric: ...


@overload
def metric(
    function: None = None, *, higher_is_better: bool = True, whole: bool = False, fraction: bool = False
) -> "Callable[[MetricFunction], Metric]": ...


def metric(
    function: "MetricFunction | None" = None,
    *,
    higher_is_better: bool = True,
    whole: bool = False,
    fraction: bool = False,
) -> "Metric | Callable[[MetricFunction], Metric]":
    """Make a metric of a function `(outputs, targets) -> number or tensor`; a decorator with or without arguments.

    The arguments are those of `Metric`.

        @ff.metric(higher_is_better=False)
        def mae(outputs, targets):
            return (outputs - targets).abs()
    """
    if function is None:
        return lambda given: Metric(given, higher_is_better, whole, fraction)
    return Metric(function, higher_is_better, whole, fraction)


@metric(fraction=True)
def accuracy(outputs: Any, targets: "torch.Tensor") -> "torch.Tensor":
    """Return for each example whether the largest of its scores, (examples, classes, …), is its target's, as 0 or 1."""
    return cast("torch.Tensor", outputs.argmax(1) == targets)


def cross_entropy(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Return `torch.nn.functional.cross_entropy`, in nats, without importing torch before it is called."""
    from torch.nn.functional import cross_entropy as function

    return function(outputs, targets)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is learned. Each end of a run has its own, of the same layout; no code ever travels.

    `model()` returns a fresh module with float32 parameters. Those that require a gradient are learned and travel;
    frozen ones and buffers must be the same on all ends, and do not. It is called under a seed.

    `examples(place)` returns a phone's own examples, or its part of a data set. `test()`, or `test(place)` for one that
    wants `data_dir` or `settings`, returns the server's test set; None is a run without evaluation.

    `loss(outputs, targets)` returns the mean of a batch as a scalar that torch can differentiate. `metrics` are
    functions or `Metric`s by name, higher is better unless one says otherwise; the first is what the best model is
    chosen by, or the loss where there is none.

    `settings` are the problem's own, by name: a default, or a `Setting` with its range. `augment(settings)` returns
    None, or a function `(inputs, generator) -> inputs` that is called once an epoch with all of a phone's inputs, in
    the order in which they will be trained, and a seeded numpy generator; one that has an attribute `epochs` is called
    once in so many epochs, with the inputs in their own order. `learner(weights, examples, training,
    generator)` trains in place of our SGD: from the flat weights, (parameters,) float32, to new ones.
    `prepare(data_dir)` is called on a phone that trains, before it joins or as soon as it knows what: it downloads or
    looks at the data, and raises where it cannot be had. `training_examples` is how many examples the phones of a run
    share, where they share a data set: it bounds the phones, and what one may claim to weigh. It is a number, or a
    function of `data_dir` that looks at what lies there.

    Raises `ConfigError` for what could not be one.
    """

    model: "Callable[[], nn.Module]"
    examples: Callable[[Place], Examples] = field(kw_only=True)
    test: Callable[..., Examples] | None = field(default=None, kw_only=True)
    loss: "Callable[[Any, torch.Tensor], torch.Tensor]" = field(default=cross_entropy, kw_only=True)
    metrics: "Mapping[str, MetricFunction | Metric]" = field(default_factory=dict, kw_only=True)
    settings: Mapping[str, Setting | Value] = field(default_factory=dict, kw_only=True)
    augment: "Augment | None" = field(default=None, kw_only=True)
    learner: "Callable[[F32, Examples, Training, np.random.Generator], F32] | None" = field(default=None, kw_only=True)
    prepare: Callable[[str | None], None] | None = field(default=None, kw_only=True)
    training_examples: int | Callable[[str | None], int | None] | None = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        for role in ("model", "examples", "loss", "test", "augment", "learner", "prepare"):
            value = getattr(self, role)
            if not callable(value) and (value is not None or role in ("model", "examples", "loss")):
                raise ConfigError(f"a problem's {role} is a function, and {type(value).__name__} is none")
        if hasattr(self.model, "state_dict") and not isinstance(self.model, type):
            raise ConfigError(
                f"a problem's model is a function that makes a fresh module each time, and this is a"
                f" {type(self.model).__name__} already; give its class, or lambda: {type(self.model).__name__}(…)"
            )
        for role, example in (("metrics", '{"accuracy": ff.accuracy}'), ("settings", '{"noise": 0.1}')):
            if not isinstance(value := getattr(self, role), Mapping):
                raise ConfigError(f"a problem's {role} have names, like {example}, and {type(value).__name__} has none")
        for name, default in self.settings.items():
            if not (isinstance(name, str) and name.isidentifier() and len(name) <= MAX_NAME):
                raise ConfigError(f"{name!r} cannot be the name of a setting: letters, digits and _ make one")
            first = default.default if isinstance(default, Setting) else default
            if not isinstance(first, bool | int | float | str):
                raise ConfigError(f"the setting {name} is a number, a text or a bool, and {first!r} is none")
        for name, function in self.metrics.items():
            _check_metric_name(name)
            if not callable(function):
                raise ConfigError(f"the metric {name} is a function, and {type(function).__name__} is none")

    @property
    def measures(self) -> Mapping[str, Metric]:
        """The metrics, each with its direction."""
        return {name: each if isinstance(each, Metric) else Metric(each) for name, each in self.metrics.items()}

    def settings_with(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Return all of the problem's settings; raises `ConfigError` for a given one that it does not take."""
        known = {name: each if isinstance(each, Setting) else Setting(each) for name, each in self.settings.items()}
        return checked(given, known, self.name or "here")

    def shared_examples(self, data_dir: str | None) -> int | None:
        """Return how many examples the phones share, or None where each has its own."""
        count = self.training_examples
        if not callable(count):
            return count
        with blaming(f"problem {self.name}: training_examples() fails"):
            return count(data_dir)

    def test_examples(self, place: Place) -> Examples | None:
        """Return the test set, or None where the problem has no `test`; one that takes no argument is given none.

        Raises `ProblemError` for a function that returns None: that is a `return` which was forgotten.
        """
        if self.test is None:
            return None
        takes = inspect.signature(self.test).parameters
        examples = self.test(place) if takes else self.test()
        if examples is None:
            raise ProblemError("it returns None, and no ff.Examples; leave test out for a run without evaluation")
        return examples


def _check_metric_name(name: str) -> None:
    """Raise `ConfigError` for a name that a target, a table or a column of a report could not have."""
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME):
        raise ConfigError(f"{name!r} cannot be the name of a metric: 1 to {MAX_NAME} printable characters make one")
    if not name[0].isalnum() or name[-1] == " " or "=" in name:
        # In a spreadsheet a column that begins with = or + is a formula.
        raise ConfigError(f"{name!r} cannot be the name of a metric: it begins with a letter or digit, and has no =")
    if name.lower() in COLUMNS or name.lower().startswith(("uplink_", "downlink_")):
        raise ConfigError(f"a metric cannot be called {name}: every round has a figure of that name already")


def partition(labels: "npt.ArrayLike | torch.Tensor | int", place: Place, spec: str | None = None) -> Indices:
    """Return the indices of a place's examples, int64 in rising order: seeded, and disjoint from all other places'.

    `labels` is one whole number for each example of a data set that all phones share, or only how many there are: then
    `iid` and `quantity:A` are what it can be cut by. `spec` is one of `iid`, `shards:N`, `dirichlet:A` and
    `quantity:A`; None takes the run's `--partition`. Raises `ConfigError` where there are fewer examples than places,
    or none of these.
    """
    chosen = place.partition if spec is None else spec
    if isinstance(labels, int):
        return _counted(chosen, labels, place.of, place.seed)[place.index]
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise ConfigError(
            f"--partition {chosen} goes by labels, one whole number for each example, and these are {array.dtype} of"
            f" shape {array.shape}; give their number, len(…), to cut them iid"
        )
    array = np.ascontiguousarray(array)
    digest = hashlib.blake2b(array.data, digest_size=16).digest()
    return _labelled(_Labels(digest, array.dtype.str, array), chosen, place.of, place.seed)[place.index]


@dataclass(frozen=True, slots=True)
class _Labels:
    """Labels, equal to others of the same digest: a process with many phones cuts a data set once."""

    digest: bytes
    dtype: str
    array: npt.NDArray[np.integer] = field(compare=False)


@functools.lru_cache(maxsize=1)
def _labelled(labels: _Labels, spec: str, shards: int, seed: int) -> list[Indices]:
    return partition_labels(spec, labels.array, shards, seed)


@functools.lru_cache(maxsize=1)
def _counted(spec: str, count: int, shards: int, seed: int) -> list[Indices]:
    return partition_counts(spec, count, shards, seed)
