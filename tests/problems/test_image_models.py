import pytest
import torch

from featherfed.errors import ConfigError
from featherfed.learning.models import build
from featherfed.problem_loading import load_problem
from tests.layouts import digits

PARAMETERS = {"mlp": 244_522, "2nn": 199_210, "cnn": 1_663_370, "lite": 29_322, "tiny": 7_946}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name: str) -> None:
    assert sum(p.numel() for p in build(digits(name), 0).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_ten_classes_come_out(name: str) -> None:
    assert build(digits(name), 0)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_first_model_is_the_one_without_a_name() -> None:
    assert load_problem("mnist").name == "mnist/tiny"
    assert load_problem("cifar10").name == "cifar10/lite"


def test_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model 'resnet' of problem mnist"):
        load_problem("mnist/resnet")
