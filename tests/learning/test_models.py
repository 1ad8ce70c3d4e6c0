import numpy as np
import pytest
import torch

from featherfed.errors import ConfigError
from featherfed.learning.models import build, layout
from featherfed.learning.names import LAYOUTS, MODELS

PARAMETERS = {"mlp": 244_522, "2nn": 199_210, "cnn": 1_663_370, "lite": 29_322, "tiny": 7_946}


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count(name: str) -> None:
    assert sum(p.numel() for p in build(name, 0).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_layout_known_without_torch_is_the_model_s(name: str) -> None:
    assert layout(build(name, 0)) == LAYOUTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_ten_classes_come_out(name: str) -> None:
    assert build(name, 0)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_weights_come_from_the_seed_and_torch_s_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (next(build("lite", seed).parameters()).detach().numpy() for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model 'resnet'"):
        build("resnet", 0)
