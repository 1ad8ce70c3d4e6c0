import torch
from torch.backends import cudnn

from featherfed.learning.precision import whole_float32


def test_convolutions_on_a_gpu_are_in_float32_and_of_a_fixed_order_and_afterwards_as_before() -> None:
    def settings() -> tuple[bool, bool, bool]:
        return torch._C._get_cudnn_allow_tf32(), cudnn.deterministic, cudnn.enabled

    before = settings()
    with whole_float32("cuda:0"):
        assert settings() == (False, True, True)
    assert settings() == before
    with whole_float32("cpu"):
        assert settings() == before
