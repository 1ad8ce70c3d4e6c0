"""Federated learning for phones on bad links.

What a file of your own needs is here, as `import featherfed as ff`; nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featherfed.errors import ConfigError, DataError, FeatherfedError, ProblemError
    from featherfed.problem import Examples, Metric, Place, Problem, accuracy, cross_entropy, metric, partition
    from featherfed.problem_loading import load_problem
    from featherfed.training_settings import Setting, Training

__version__ = "0.1.0"

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "Examples": "problem",
    "FeatherfedError": "errors",
    "Metric": "problem",
    "Place": "problem",
    "Problem": "problem",
    "ProblemError": "errors",
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
    "ConfigError",
    "DataError",
    "Examples",
    "FeatherfedError",
    "Metric",
    "Place",
    "Problem",
    "ProblemError",
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
