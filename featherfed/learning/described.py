"""Problems as `fl-server models` shows them: the tensors that travel."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from featherfed.learning.models import build, layout
from featherfed.problem_loading import load_problem
from featherfed.problems import OURS


def ours() -> list[str]:
    """Return the names of all of our problems with each of their models."""
    names = []
    for family, target in OURS.items():
        names += [f"{family}/{model}" for model in import_module(target.partition(":")[0]).MODELS]
    return names


def relative_with(name: str, tensors: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the problem of ours, of the same family as `name`, whose model has tensors of these names and shapes."""
    family = name.partition("/")[0]
    for relative in ours():
        if relative.partition("/")[0] == family:
            there = layout(build(load_problem(relative), 0)).tensors
            if {tensor.name: tensor.shape for tensor in there} == tensors:
                return relative
    return None


def described(name: str) -> dict[str, Any]:
    """Return a problem's name, its parameters, their bytes as float32, and its tensors; raises `ConfigError`."""
    problem = load_problem(name)
    model = layout(build(problem, 0))
    tensors = [{"name": each.name, "shape": each.shape, "parameters": each.size} for each in model.tensors]
    return {"problem": problem.name, "parameters": model.size, "bytes": 4 * model.size, "tensors": tensors}


def summary(model: dict[str, Any]) -> str:
    """Return what `described` gives as a plain table."""
    lines = [f"{'tensor':<14} {'shape':<18} {'parameters':>12} {'bytes':>12}"]
    for tensor in model["tensors"]:
        size = tensor["parameters"]
        lines.append(f"{tensor['name']:<14} {'×'.join(map(str, tensor['shape'])):<18} {size:>12,} {4 * size:>12,}")
    return "\n".join([*lines, f"{'total':<33} {model['parameters']:>12,} {model['bytes']:>12,}"])
