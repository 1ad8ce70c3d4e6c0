"""A model as a chain of layers, in words that a phone without torch can follow: docs/BROWSER.md has the format."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from featherfed.errors import ProblemError
from featherfed.learning.passes import is_cross_entropy
from featherfed.problem import Problem
from featherfed.problems.moves import moves

SIDE = 28
DRAWN = {family: (0.1307, 0.3081) for family in ("digits", "mnist", "mnist-tuning")}
"""Problems whose examples can be drawn by hand, with the mean and the deviation of their pixels."""


def described(problem: Problem, module: nn.Module) -> dict[str, Any]:
    """Return the layers of a problem's model, its input's shape and how a drawing becomes an input.

    Raises `ProblemError` with a sentence for people where a browser's phone could not train it.
    """
    family = problem.name.partition("/")[0]
    if family not in DRAWN:
        raise ProblemError(
            f"the examples of problem {problem.name} cannot be drawn by hand, as those of"
            f" {', '.join(DRAWN)} can; join with fl-edge instead"
        )
    if not is_cross_entropy(problem) or problem.learner is not None or problem.augment not in (None, moves):
        raise ProblemError(f"problem {problem.name} trains in a way of its own; join with fl-edge instead")
    layers = list(_layers(problem.name, module))
    try:
        with torch.inference_mode():
            classes = int(module(torch.zeros(1, 1, SIDE, SIDE)).shape[1])
    except RuntimeError as error:
        raise ProblemError(f"the model of problem {problem.name} takes no images of {SIDE}×{SIDE} pixels") from error
    mean, deviation = DRAWN[family]
    return {
        "problem": problem.name,
        "input": [1, SIDE, SIDE],
        "classes": classes,
        "layers": layers,
        "drawing": {"mean": mean, "deviation": deviation},
        "digits": family == "digits",
    }


def _layers(problem: str, module: nn.Module) -> Iterator[dict[str, Any]]:
    for name, layer in module.named_children() if isinstance(module, nn.Sequential) else [("", module)]:
        if not all(parameter.requires_grad for parameter in layer.parameters()):
            raise ProblemError(
                f"the model of problem {problem} has a frozen layer, {name}, which never travels, and a browser has no"
                " model of its own; join with fl-edge instead"
            )
        said = _layer(name, layer)
        if said is None:
            raise ProblemError(
                f"the model of problem {problem} is no chain of linear layers, convolutions, max pooling, ReLU and"
                f" flatten: it has a {type(layer).__name__}; join with fl-edge instead"
            )
        yield said


def _layer(name: str, layer: nn.Module) -> dict[str, Any] | None:
    match layer:
        case nn.ReLU():
            return {"kind": "relu"}
        case nn.Flatten(start_dim=1, end_dim=-1):
            return {"kind": "flatten"}
        case nn.Linear():
            return {"kind": "linear", **_tensors(name, layer)}
        case nn.Conv2d(groups=1, padding_mode="zeros") if _pair(layer.dilation) == [1, 1] and layer.padding != "same":
            padding = [0, 0] if isinstance(layer.padding, str) else _pair(layer.padding)
            return {"kind": "conv", **_tensors(name, layer), "stride": _pair(layer.stride), "padding": padding}
        case nn.MaxPool2d(ceil_mode=False, return_indices=False):
            size = _pair(layer.kernel_size)
            apart = _pair(layer.stride) == size and _pair(layer.padding) == [0, 0] and _pair(layer.dilation) == [1, 1]
            return {"kind": "max", "size": size} if apart else None
    return None


def _tensors(name: str, layer: nn.Linear | nn.Conv2d) -> dict[str, Any]:
    prefix = f"{name}." if name else ""
    return {"weight": f"{prefix}weight", "bias": None if layer.bias is None else f"{prefix}bias"}


def _pair(size: Any) -> list[int]:
    return list(size) if isinstance(size, tuple) else [size, size]
