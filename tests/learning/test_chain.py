"""A model in words, for a phone without torch; or why it has none."""

from dataclasses import replace

import pytest
from torch import nn
from torch.nn.functional import mse_loss

from featherfed.errors import ProblemError
from featherfed.learning.chain import described
from featherfed.learning.models import build
from featherfed.problem import Problem
from featherfed.problem_loading import load_problem

TINY = load_problem("digits/tiny")


@pytest.mark.parametrize("name", ["digits/lite", "digits/2nn", "digits/mlp", "mnist/cnn", "mnist-tuning/tiny"])
def test_our_models_of_digits_are_chains(name: str) -> None:
    problem = load_problem(name)
    module = build(problem, 0)
    said = described(problem, module)
    assert said["problem"] == name and said["input"] == [1, 28, 28] and said["classes"] == 10
    assert said["digits"] == name.startswith("digits/")
    named = [layer[part] for layer in said["layers"] for part in ("weight", "bias") if part in layer]
    assert named == [each for each, _ in module.named_parameters()]


def test_layers_say_what_cannot_be_told_from_their_tensors() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, (3, 5), stride=(2, 1), padding=(1, 0), bias=False), nn.MaxPool2d((2, 3)),
                           nn.Flatten(), nn.Linear(4 * 7 * 8, 10))  # fmt: skip
    assert described(TINY, module)["layers"] == [
        {"kind": "conv", "weight": "0.weight", "bias": None, "stride": [2, 1], "padding": [1, 0]},
        {"kind": "max", "size": [2, 3]},
        {"kind": "flatten"},
        {"kind": "linear", "weight": "3.weight", "bias": "3.bias"},
    ]


def after(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))


@pytest.mark.parametrize(
    ("problem", "module", "sentence"),
    [
        (load_problem("kmnist/tiny"), None, "kmnist/tiny cannot be drawn by hand, as those of digits, mnist"),
        (replace(TINY, loss=mse_loss), None, "trains in a way of its own"),
        (replace(TINY, learner=lambda weights, *_: weights), None, "trains in a way of its own"),
        (replace(TINY, augment=lambda settings: None), None, "trains in a way of its own"),
        (TINY, after(nn.Sigmoid()), "is no chain of .*: it has a Sigmoid"),
        (TINY, after(nn.Sequential(nn.ReLU())), "it has a Sequential"),
        (TINY, after(nn.MaxPool2d(3, stride=2)), "it has a MaxPool2d"),
        (TINY, after(nn.Conv2d(1, 2, 3, dilation=2)), "it has a Conv2d"),
        (TINY, after(nn.Conv2d(1, 2, 3, padding="same")), "it has a Conv2d"),
        (load_problem("digits/cnn-fixed"), None, "has a frozen layer, a, which never travels"),
        (TINY, nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), "takes no images of 28×28 pixels"),
    ],
)  # fmt: skip
def test_what_no_browser_can_train_is_said_in_a_sentence(
    problem: Problem, module: nn.Module | None, sentence: str
) -> None:
    with pytest.raises(ProblemError, match=sentence):
        described(problem, module or build(problem, 0))
