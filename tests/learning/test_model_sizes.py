"""What a model's names and shapes may take: they travel in one Welcome, with the settings of the problem."""

import pytest
import torch
from torch import nn

from featherfed.errors import ProblemError
from featherfed.learning.models import MAX_DESCRIBED_BYTES, MAX_TENSORS, build
from featherfed.problem import Examples, Problem
from featherfed.training_settings import MAX_SETTINGS, MAX_SETTINGS_BYTES, Training
from featherfed.wire.messages import MAX_FRAME_BYTES, Task, Welcome, pack, tensor_entries


def test_model_that_no_welcome_could_describe_is_refused_at_the_start() -> None:
    def many(tensors: int, letters: int) -> nn.Module:
        return nn.ParameterDict({f"{number:0{letters}}": nn.Parameter(torch.zeros(1)) for number in range(tensors)})

    def problem(module: nn.Module) -> Problem:
        return Problem(lambda: module, examples=lambda place: Examples(torch.zeros(1), torch.zeros(1)))

    with pytest.raises(ProblemError, match="4096 tensors take 999424 bytes, more than"):
        build(problem(many(4096, 200)), 0)
    with pytest.raises(ProblemError, match="has 17 dimensions, more than 16"):
        build(problem(nn.ParameterDict({"deep": nn.Parameter(torch.zeros((1,) * 17))})), 0)


def test_largest_model_and_settings_fit_one_welcome() -> None:
    wide = "\N{MATHEMATICAL FRAKTUR SMALL A}"
    most = MAX_DESCRIBED_BYTES // (9 + 16 + 4 + 19)
    rows = [(wide, (1 << 52,), bytes(8))] * min(most, MAX_TENSORS)
    rows += [("x" * 200, (1 << 52,) * 16, bytes(8))] * ((MAX_DESCRIBED_BYTES - 48 * len(rows)) // (200 + 144 + 16 + 19))
    texts = {f"{wide * 10}{number:02}": wide * 50 for number in range(MAX_SETTINGS)}
    while sum(len(str(part).encode()) for pair in texts.items() for part in pair) > MAX_SETTINGS_BYTES:
        texts.popitem()
    told = Training(set=texts)
    name = wide * 64
    welcome = Welcome(
        name, name, name, 1 << 52, 1 << 52, (1 << 64) - 1, 1 << 52, 20.5, "x" * 256, "x" * 256, told.to_wire(),
        bytes(8), [[-0.5, 0.5]] * len(rows), tensor_entries(rows),
    )  # fmt: skip
    assert len(pack(welcome)) <= MAX_FRAME_BYTES
    assert len(pack(Task(1 << 52, 1 << 52, {"uplink": "x" * 256, "set": told.set}))) <= MAX_FRAME_BYTES
