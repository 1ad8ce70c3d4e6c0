"""Federated learning for phones on bad links.

What a file of your own needs is here, as `import featherfed as ff`; nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featherfed.codec.registry import stage
    from featherfed.codec.stage import Slot, Stage, Trait
    from featherfed.errors import (
        CodecError,
        ConfigError,
        DataError,
        FeatherfedError,
        LocalError,
        NotReachedError,
        ProblemError,
    )
    from featherfed.experiment import Experiment
    from featherfed.local_training import SGD
    from featherfed.problem import Examples, Metric, Place, Problem, accuracy, cross_entropy, metric, partition
    from featherfed.problem_loading import load_problem
    from featherfed.report import Reached, Report, Round
    from featherfed.rules.aggregate import Aggregate, Arrays, Updates
    from featherfed.rules.aggregates import Mean, Median, TrimmedMean
    from featherfed.rules.distances import GeometricMedian, Krum, MultiKrum
    from featherfed.rules.optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
    from featherfed.rules.select import PhoneFacts, Select, SelectKey
    from featherfed.rules.selections import FastLinks, RarePhones, Uniform
    from featherfed.rules.server_optimizer import ServerOptimizer, ServerState
    from featherfed.server.storage.spent import Spent
    from featherfed.training_settings import Setting, Training

__version__ = "0.1.0"

_HOME = {
    "Aggregate": "rules.aggregate",
    "Arrays": "rules.aggregate",
    "CodecError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "Examples": "problem",
    "Experiment": "experiment",
    "FastLinks": "rules.selections",
    "FeatherfedError": "errors",
    "FedAdagrad": "rules.optimizers",
    "FedAdam": "rules.optimizers",
    "FedAvg": "rules.optimizers",
    "FedAvgM": "rules.optimizers",
    "FedYogi": "rules.optimizers",
    "GeometricMedian": "rules.distances",
    "Krum": "rules.distances",
    "LocalError": "errors",
    "Mean": "rules.aggregates",
    "Median": "rules.aggregates",
    "Metric": "problem",
    "MultiKrum": "rules.distances",
    "NotReachedError": "errors",
    "PhoneFacts": "rules.select",
    "Place": "problem",
    "Problem": "problem",
    "ProblemError": "errors",
    "RarePhones": "rules.selections",
    "Reached": "report",
    "Report": "report",
    "Round": "report",
    "SGD": "local_training",
    "Select": "rules.select",
    "SelectKey": "rules.select",
    "ServerOptimizer": "rules.server_optimizer",
    "ServerState": "rules.server_optimizer",
    "Setting": "training_settings",
    "Slot": "codec.stage",
    "Spent": "server.storage.spent",
    "Stage": "codec.stage",
    "Training": "training_settings",
    "Trait": "codec.stage",
    "TrimmedMean": "rules.aggregates",
    "Uniform": "rules.selections",
    "Updates": "rules.aggregate",
    "accuracy": "problem",
    "cross_entropy": "problem",
    "load_problem": "problem_loading",
    "metric": "problem",
    "partition": "problem",
    "stage": "codec.registry",
}
"""The module that each public name lives in."""

__all__ = [
    "SGD",
    "Aggregate",
    "Arrays",
    "CodecError",
    "ConfigError",
    "DataError",
    "Examples",
    "Experiment",
    "FastLinks",
    "FeatherfedError",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedYogi",
    "GeometricMedian",
    "Krum",
    "LocalError",
    "Mean",
    "Median",
    "Metric",
    "MultiKrum",
    "NotReachedError",
    "PhoneFacts",
    "Place",
    "Problem",
    "ProblemError",
    "RarePhones",
    "Reached",
    "Report",
    "Round",
    "Select",
    "SelectKey",
    "ServerOptimizer",
    "ServerState",
    "Setting",
    "Slot",
    "Spent",
    "Stage",
    "Training",
    "Trait",
    "TrimmedMean",
    "Uniform",
    "Updates",
    "accuracy",
    "cross_entropy",
    "load_problem",
    "metric",
    "partition",
    "stage",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'featherfed' has no attribute {name!r}")
    return getattr(import_module(f"featherfed.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
