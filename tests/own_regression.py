"""A user's own file, with a problem whose metric is no accuracy and a rule, for experiments and their processes."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import mse_loss

import featherfed as ff


def table(seed: int, count: int) -> ff.Examples:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return ff.Examples(inputs, (inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])).unsqueeze(1))


def model() -> nn.Module:
    return nn.Linear(4, 1)


@ff.metric(higher_is_better=False)
def mae(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs()


problem = ff.Problem(
    model, examples=lambda place: table(100 + place.index, 60), test=lambda: table(7, 100), loss=mse_loss,
    metrics={"mae": mae},
)  # fmt: skip


class First(ff.Aggregate):
    """The update of the first phone."""

    def combine(self, state: ff.Arrays, updates: ff.Updates) -> tuple[ff.Arrays, npt.NDArray[np.float32]]:
        return state, updates.rows[0]
