"""What docs/PROTOCOL.md says of learning, as the code has it: the models' layers, the data sets, two steps of SGD."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from featherfed.codec.pipeline import Pipeline
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build, layout
from featherfed.learning.training import Trainer
from featherfed.problem import Examples, Problem
from featherfed.problem_loading import load_problem
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training
from tests.layouts import NAMES, digits

PIXEL, LABEL, COUNT, BATCH = 2.0, 0, 3, 2
"""The examples of the worked example are equal, so that their order does not matter."""
START = {"a₀": 0.5, "aₖ": 0.0, "b₀": 0.0, "bₖ": 0.0}
LR, MOMENTUM, WEIGHT_DECAY, PROX_MU = 0.1, 0.9, 0.01, 0.5


def _side(sides: int | tuple[int, ...] | str) -> int:
    """Return the one number of a square."""
    pair = sides if isinstance(sides, tuple) else (sides, sides)
    assert pair[0] == pair[1] and isinstance(pair[0], int)
    return pair[0]


def _spelled(name: str, module: nn.Module) -> str:
    """Return a layer in words; what the words do not say must be what the page says of all layers."""
    match module:
        case nn.Conv2d():
            assert (module.dilation, module.groups, module.padding_mode) == ((1, 1), 1, "zeros")
            assert module.bias is not None
            side, stride, padding = map(_side, (module.kernel_size, module.stride, module.padding))
            return f"{name} {side}×{side}, stride {stride}, padding {padding}"
        case nn.MaxPool2d():
            side = _side(module.kernel_size)
            assert (_side(module.stride), module.padding, module.dilation, module.ceil_mode) == (side, 0, 1, False)
            return f"max {side}×{side}"
        case nn.Linear():
            assert module.bias is not None
            return f"{name} linear"
        case nn.ReLU():
            return "ReLU"
        case nn.Flatten():
            assert (module.start_dim, module.end_dim) == (1, -1)
            return "flatten"
    raise AssertionError(f"no words for {module}")


def architecture_rows() -> list[list[str]]:
    """Return (model, its layers with the shape that each one gives)."""
    result = []
    for model in NAMES:
        x, layers = torch.zeros(1, 1, 28, 28), []
        for name, module in build(digits(model), 0).named_children():
            x = module(x)
            shape = "" if isinstance(module, nn.ReLU) else " → " + "×".join(map(str, x.shape[1:]))
            layers.append(_spelled(name, module) + shape)
        result.append([model, "; ".join(layers)])
    return result


def data_rows() -> list[list[str]]:
    """Return (data set, training examples)."""
    names = ("mnist", "mnist-tuning", "digits", "fashion-mnist", "kmnist", "emnist", "cifar10")
    counts = {name: load_problem(name).shared_examples("/nowhere") for name in names}
    return [[name, f"{count:,}"] for name, count in counts.items()]


def sgd_steps() -> Iterator[dict[str, tuple[float, float, float, float]]]:
    """Yield for each step (g, g + λw + μ(w − w₀), m, new w) by coordinate, by the page's formulas in float64."""
    weights, momentum = dict(START), dict.fromkeys(START, 0.0)
    while True:
        logits = [PIXEL * weights["a₀"] + weights["b₀"], PIXEL * weights["aₖ"] + weights["bₖ"]]
        powers = [math.exp(logit) for logit in logits]
        total = powers[0] + 9 * powers[1]
        by_logit = {"₀": powers[0] / total - 1, "ₖ": powers[1] / total}
        step = {}
        for name, w in weights.items():
            gradient = by_logit[name[1]] * (PIXEL if name[0] == "a" else 1.0)
            pulled = gradient + WEIGHT_DECAY * w + PROX_MU * (w - START[name])
            momentum[name] = MOMENTUM * momentum[name] + pulled
            step[name] = (gradient, pulled, momentum[name], w - LR * momentum[name])
        yield step
        weights = {name: values[-1] for name, values in step.items()}


def _number(value: float) -> str:
    return f"{value:.6f}".replace("-", "−")


def sgd_rows() -> list[list[str]]:
    """Return (step, coordinate, g, g + λw + μ(w − w₀), m, w) of two steps."""
    return [
        [str(number), name, *map(_number, values)]
        for number, step in zip((1, 2), sgd_steps(), strict=False)
        for name, values in step.items()
    ]


def trained_update(*, batch_size: int) -> dict[str, float]:
    """Return the update that the real training makes of the worked example, by coordinate."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 10))
    examples = Examples(torch.full((COUNT, 1, 1, 1), PIXEL), torch.full((COUNT,), LABEL))
    start = np.zeros(20, np.float32)
    start[0] = START["a₀"]
    settings = Training(batch_size=batch_size, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, prox_mu=PROX_MU)
    key = RoundKey(0, 1, 0)
    space = Pipeline.parse("float32").space(layout(model), key)
    problem = Problem(lambda: model, examples=lambda place: examples, name="of its own")
    update = Trainer(problem, examples, model=FlatModel(model)).train(start, settings, key, space)
    assert update is not None
    a, b = update.coordinates[:10], update.coordinates[10:]
    assert np.ptp(a[1:]) == np.ptp(b[1:]) == 0.0
    return {"a₀": float(a[0]), "aₖ": float(a[1]), "b₀": float(b[0]), "bₖ": float(b[1])}
