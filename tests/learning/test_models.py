import numpy as np
import torch

from featherfed.learning.models import build
from tests.layouts import digits


def test_weights_come_from_the_seed_and_torch_s_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (next(build(digits(), seed).parameters()).detach().numpy() for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
