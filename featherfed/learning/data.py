"""Images and labels as tensors in memory, normalised once: MNIST from torchvision's files, or bundled digits.

torchvision is imported only here, and only for MNIST: the bundled digits need scikit-learn alone.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from featherfed.errors import ConfigError, DataError
from featherfed.learning.names import DATASETS
from featherfed.learning.partition import partition

MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's training pixels, scaled to 0…1."""
DIGITS_TEST_SHARE = 5
"""One digit in so many is for testing."""


@dataclass(frozen=True, slots=True)
class Examples:
    """`images`: (examples, 1, 28, 28) float32, normalised; `labels`: (examples,) int64."""

    images: torch.Tensor
    labels: torch.Tensor


def data_folder(data_dir: str | None) -> Path:
    """Return the folder that holds MNIST, or will: the argument, FL_DATA_DIR, or a cache of ours."""
    named = data_dir or os.environ.get("FL_DATA_DIR")
    return Path(named) if named else Path.home() / ".cache" / "featherfed"


def load(name: str, data_dir: str | None, *, train: bool) -> Examples:
    """Return the training or the test examples; raises `DataError` where they cannot be had."""
    pixels, labels = _raw(name, data_dir, train=train)
    return _prepare(pixels, labels)


def load_shard(name: str, data_dir: str | None, scheme: str, shards: int, index: int, seed: int) -> Examples:
    """Return one phone's examples: shard `index` of `shards`. The rest of the data set is let go."""
    pixels, labels = _raw(name, data_dir, train=True)
    mine = torch.from_numpy(partition(scheme, labels.numpy(), shards, seed)[index])
    return _prepare(pixels[mine], labels[mine])


def labels_of(name: str, data_dir: str | None) -> npt.NDArray[np.int64]:
    """Return the labels of the training examples, which partitions are made from."""
    labels: npt.NDArray[np.int64] = _raw(name, data_dir, train=True)[1].numpy()
    return labels


def _prepare(pixels: torch.Tensor, labels: torch.Tensor) -> Examples:
    images = pixels.to(torch.float32).div_(255).sub_(MEAN).div_(DEVIATION)
    return Examples(images.unsqueeze(1).contiguous(), labels.to(torch.int64))


def _raw(name: str, data_dir: str | None, *, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    return _digits(train=train) if name == "digits" else _mnist(data_folder(data_dir), train=train)


def _mnist(folder: Path, *, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.datasets import MNIST

    try:
        dataset = MNIST(str(folder), train=train, download=not (folder / "MNIST" / "raw").is_dir())
    # torchvision reports a failed download as RuntimeError, a truncated file as ValueError, AssertionError or KeyError.
    except (OSError, RuntimeError, ValueError, AssertionError, KeyError) as error:
        raise DataError(
            f"cannot read or download MNIST in {folder}: {' '.join(str(error).split())[:120]};"
            " name a folder that holds it with --data-dir or FL_DATA_DIR, or use --data digits, which needs none"
        ) from error
    return dataset.data, dataset.targets


def _digits(*, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).to(torch.float32).unsqueeze(1) * (255 / 16)
    # 8×8 becomes 24×24 with a frame of two, as MNIST's digits lie in 28×28.
    large = torch.nn.functional.interpolate(small, size=(24, 24), mode="bilinear", align_corners=False)
    framed = torch.nn.functional.pad(large, (2, 2, 2, 2)).squeeze(1)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(framed))
    test = len(framed) // DIGITS_TEST_SHARE
    chosen = torch.from_numpy(order[test:] if train else order[:test])
    return framed[chosen], torch.from_numpy(bunch.target)[chosen]
