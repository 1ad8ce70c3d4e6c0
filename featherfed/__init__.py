"""Federated learning for phones on bad links.

What a file of your own needs is here, as `import featherfed as ff`; nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featherfed.errors import ConfigError, DataError, FeatherfedError, LocalError, NotReachedError, ProblemError
    from featherfed.experiment import Experiment
    from featherfed.optimizers import SGD, FedAdam, FedAvg, FedAvgM, FedYogi, ServerStep
    from featherfed.problem import Examples, Metric, Place, Problem, accuracy, cross_entropy, metric, partition
    from featherfed.problem_loading import load_problem
    from featherfed.report import Reached, Report, Round
    from featherfed.training_settings import Setting, Training

__version__ = "0.1.0"

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "Examples": "problem",
    "Experiment": "experiment",
    "FeatherfedError": "errors",
    "FedAdam": "optimizers",
    "FedAvg": "optimizers",
    "FedAvgM": "optimizers",
    "FedYogi": "optimizers",
    "LocalError": "errors",
    "Metric": "problem",
    "NotReachedError": "errors",
    "Place": "problem",
    "Problem": "problem",
    "ProblemError": "errors",
    "Reached": "report",
    "Report": "report",
    "Round": "report",
    "SGD": "optimizers",
    "ServerStep": "optimizers",
    "Setting": "training_settings",
    "Training": "training_settings",
    "accuracy": "problem",
    "cross_entropy": "problem",
    "load_problem": "problem_loading",
    "metric": "problem",
    "partition": "problem",
}
"""The module that each public name lives in."""

__all__ = [
    "SGD",
    "ConfigError",
    "DataError",
    "Examples",
    "Experiment",
    "FeatherfedError",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedYogi",
    "LocalError",
    "Metric",
    "NotReachedError",
    "Place",
    "Problem",
    "ProblemError",
    "Reached",
    "Report",
    "Round",
    "ServerStep",
    "Setting",
    "Training",
    "accuracy",
    "cross_entropy",
    "load_problem",
    "metric",
    "partition",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'featherfed' has no attribute {name!r}")
    return getattr(import_module(f"featherfed.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
