"""Images that are moved about: what a warp makes of them, and that it is drawn for each alone."""

import numpy as np
import pytest
import torch

from featherfed.problem_loading import load_problem
from featherfed.problems.moves import DEGREES, Warp, moves


def random() -> np.random.Generator:
    return np.random.default_rng(3)


def bars(count: int, height: int = 28, width: int = 28, channels: int = 1) -> torch.Tensor:
    images = torch.full((count, channels, height, width), -0.4)
    images[:, :, height // 2 - 1 : height // 2 + 1, 4:-4] = 2.0
    return images


def test_without_a_strength_images_stay() -> None:
    assert moves({"shift": 0, "warp": 0.0, "warp_epochs": 1}) is None
    assert not isinstance(moves({"shift": 1, "warp": 0.0, "warp_epochs": 3}), Warp)
    assert moves({"shift": 0, "warp": 0.5, "warp_epochs": 3}) == Warp(0.5, 3)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 32)])
def test_bar_is_turned_by_up_to_twelve_degrees_each_way(height: int, width: int) -> None:
    warped = Warp(1.0, 1)(bars(2000, height, width), random())
    ink = (warped[:, 0] + 0.4).double()
    rows, columns = torch.arange(height).double() - (height - 1) / 2, torch.arange(width).double() - (width - 1) / 2
    weight = ink.sum((1, 2))
    across = (ink * columns).sum((1, 2)) / weight
    slope = (ink * rows[:, None] * columns).sum((1, 2)) / (ink * columns**2).sum((1, 2))
    degrees = torch.rad2deg(torch.atan(slope))
    assert -DEGREES - 0.5 < float(degrees.min()) < -0.9 * DEGREES
    assert 0.9 * DEGREES < float(degrees.max()) < DEGREES + 0.5
    assert abs(float(degrees.mean())) < 0.5 and float(across.abs().max()) < 0.1
    lengths = torch.sqrt(12 * (ink * columns**2).sum((1, 2)) / weight) / torch.cos(torch.atan(slope))
    told = lengths / float(width - 8)
    assert 0.85 < float(told.min()) < 0.93 and 1.07 < float(told.max()) < 1.15


def test_what_comes_in_is_the_darkest_value_and_nothing_is_brighter_than_before() -> None:
    images = bars(50)
    images[:, :, 0, 0] = -0.5
    warped = Warp(5.0, 1)(images, random())
    assert float(warped.min()) >= -0.5 - 1e-6 and float(warped.max()) <= 2.0 + 1e-6
    assert torch.isclose(warped[:, :, 0, 0], torch.tensor(-0.5)).any()


def test_channels_of_a_picture_move_together_and_lie_last_in_memory() -> None:
    images = bars(30, channels=3) * torch.tensor([1.0, 2.0, 3.0])[None, :, None, None]
    images -= images.min()
    warped = Warp(1.0, 1)(images, random())
    assert torch.allclose(warped[:, 1], 2 * warped[:, 0] + (images.min() - 0), atol=2.0)
    assert warped.is_contiguous(memory_format=torch.channels_last)


def test_images_are_shifted_and_then_warped() -> None:
    change = moves({"shift": 3, "warp": 1.0, "warp_epochs": 1})
    assert isinstance(change, Warp)
    both, alone = (each(bars(200), random()) for each in (change, Warp(1.0, 1)))
    rows = torch.arange(28).double()
    middles = [
        ((each[:, 0] + 0.4) * rows[:, None]).sum((1, 2)) / (each[:, 0] + 0.4).sum((1, 2)) for each in (both, alone)
    ]
    assert float(middles[0].std()) > 1.5 and float(middles[1].std()) < 0.2


def test_settings_are_those_of_every_problem_of_images() -> None:
    for name in ("digits", "mnist", "cifar10", "emnist"):
        assert {"shift", "warp", "warp_epochs"} <= set(load_problem(name).settings)
