"""Images and labels as tensors in memory, normalised once: MNIST in torchvision's layout, or bundled digits.

`mnist-tuning` never touches MNIST's test files: what is tuned on it is then measured on `mnist` for the first time.

torchvision is imported only here, and only where MNIST is not there yet; the digits are scikit-learn's bundled ones.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from featherfed.errors import ConfigError, DataError
from featherfed.learning.idx import U8, map_idx
from featherfed.learning.names import DATASETS, TRAINING_EXAMPLES
from featherfed.learning.partition import partition

MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's training pixels, scaled to 0…1."""
CLASSES = 10
MNIST_FILES = {True: "train", False: "t10k"}
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


class Shards:
    """A data set in the shards of a run's phones. Only the examples of a shard that is asked for are copied."""

    def __init__(self, name: str, data_dir: str | None, scheme: str, shards: int, seed: int) -> None:
        self._pixels, self._labels = _raw(name, data_dir, train=True)
        self._indices = partition(scheme, self._labels, shards, seed)

    def examples(self, index: int) -> Examples:
        """Return the examples of one shard."""
        mine = self._indices[index]
        return _prepare(self._pixels[mine], self._labels[mine])


def load_shard(name: str, data_dir: str | None, scheme: str, shards: int, index: int, seed: int) -> Examples:
    """Return one phone's examples: shard `index` of `shards`."""
    return Shards(name, data_dir, scheme, shards, seed).examples(index)


def check_folder(data_dir: str) -> None:
    """Raise `DataError` unless a folder that was named holds MNIST's training set, which is downloaded where it is not.

    Before a phone joins: afterwards a round would wait for it.
    """
    _mnist(Path(data_dir), train=True)


def examples_here(name: str, data_dir: str | None) -> int | None:
    """Return how many training examples this machine has of a data set; None where it has none of MNIST.

    A server needs the test set alone.
    """
    if name == "digits":
        return TRAINING_EXAMPLES[name]
    labels = data_folder(data_dir) / "MNIST" / "raw" / f"{MNIST_FILES[True]}-labels-idx1-ubyte"
    if not labels.exists():
        return None
    there = len(map_idx(labels, 1))
    return min(there, TRAINING_EXAMPLES[name]) if name == "mnist-tuning" else there


def labels_of(name: str, data_dir: str | None) -> npt.NDArray[np.integer]:
    """Return the labels of the training examples, which partitions are made from."""
    return _raw(name, data_dir, train=True)[1]


def _prepare(pixels: npt.NDArray[np.generic], labels: npt.NDArray[np.integer]) -> Examples:
    images = torch.from_numpy(pixels.astype(np.float32)).div_(255).sub_(MEAN).div_(DEVIATION)
    return Examples(images.unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


def _raw(name: str, data_dir: str | None, *, train: bool) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.integer]]:
    """Return pixels from 0 to 255, (examples, 28, 28), and labels, (examples,)."""
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    if name == "digits":
        return _digits(train=train)
    folder = data_folder(data_dir)
    return _mnist(folder, train=train) if name == "mnist" else _held_out(folder, train=train)


def _held_out(folder: Path, *, train: bool) -> tuple[U8, U8]:
    """Return MNIST's training images without the last 10,000, or those: they stand in for the test set."""
    pixels, labels = _mnist(folder, train=True)
    first = TRAINING_EXAMPLES["mnist-tuning"]
    if len(labels) <= first:
        raise DataError(f"{folder} has {len(labels)} training examples: mnist-tuning tests on those after {first}")
    chosen = slice(first) if train else slice(first, None)
    return pixels[chosen], labels[chosen]


def _mnist(folder: Path, *, train: bool) -> tuple[U8, U8]:
    raw = folder / "MNIST" / "raw"
    paths = [raw / f"{MNIST_FILES[train]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    try:
        if not all(_is_there(path) for path in paths):
            _download(folder)
        pixels, labels = map_idx(paths[0], 3), map_idx(paths[1], 1)
        if len(pixels) != len(labels) or pixels.shape[1:] != (28, 28):
            raise DataError(f"{raw} has {len(labels)} labels for images of shape {pixels.shape}")
        if len(labels) == 0:
            raise DataError(f"{paths[1]} holds no example")
        if (largest := int(labels.max())) >= CLASSES:
            # EMNIST's letters come under the same names.
            raise DataError(
                f"{paths[1]} has labels to {largest}, and the models tell {CLASSES} classes, 0 to {CLASSES - 1}"
            )
    except DataError as error:
        raise DataError(
            f"{error}; name a folder that holds MNIST with --data-dir or FL_DATA_DIR,"
            " or use --data digits, which needs none"
        ) from error
    return pixels, labels


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _download(folder: Path) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(str(folder), download=True)
    # torchvision reports a failed download as RuntimeError.
    except (OSError, RuntimeError) as error:
        # Of the places that it tried, each on a line of its own, the last one's reason.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip("<> ")
        raise DataError(f"cannot download MNIST to {folder}: {reason}") from error


def _digits(*, train: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    values = np.loadtxt(_bundled_digits(), np.float32, delimiter=",")  # (1797, 65): 64 pixels from 0 to 16, the label
    small = torch.from_numpy(values[:, :64]).reshape(-1, 1, 8, 8) * (255 / 16)
    # 8×8 becomes 24×24 with a frame of two, as MNIST's digits lie in 28×28.
    large = torch.nn.functional.interpolate(small, size=(24, 24), mode="bilinear", align_corners=False)
    framed = torch.nn.functional.pad(large, (2, 2, 2, 2)).squeeze(1).numpy()
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(framed))
    test = len(framed) // DIGITS_TEST_SHARE
    chosen = order[test:] if train else order[:test]
    return framed[chosen], values[chosen, 64].astype(np.int64)


def _bundled_digits() -> Path:
    """Return the file of `sklearn.datasets.load_digits`, without importing the 900 modules around it."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataError("--data digits needs scikit-learn's bundled data; pip install scikit-learn")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
