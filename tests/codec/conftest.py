import numpy as np
import pytest

from featherfed.codec.layout import Layout, Tensor


@pytest.fixture
def layout() -> Layout:
    """Matrices, a kernel, a vector above the threshold and small ones below it."""
    return Layout(
        (
            Tensor("a", (40, 30)),
            Tensor("a.bias", (40,)),
            Tensor("conv", (8, 3, 5, 5)),
            Tensor("long", (131,)),
            Tensor("one", (1,)),
        )
    )


def normal(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)
