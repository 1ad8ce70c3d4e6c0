"""scikit-learn's bundled digits, enlarged to MNIST's size: nothing is downloaded."""

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featherfed.errors import DataError
from featherfed.problem import Place, Problem, partition
from featherfed.problems.images import Images, Labels, Pixels, image_problem

MODELS = ("lite", "2nn", "mlp", "cnn", "cnn-fixed", "tiny")
TEST_SHARE = 5
"""One digit in so many is for testing."""


def digits(model: str = "") -> Problem:
    """Return the problem of 1,797 digits (Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits")."""
    images = Images(load=load, mean=[0.1307], deviation=[0.3081], classes=10, training_examples=1_438)
    return image_problem("digits", images, MODELS, model)


def small(place: Place) -> bytes:
    """Return a place's training digits as they are bundled: of each 64 values from 0 to 16, and its label."""
    values = _values()
    mine = values[_chosen(train=True)]
    return mine[partition(mine[:, 64].astype(np.int64), place)].astype(np.uint8).tobytes()


def load(folder: Path, *, train: bool) -> tuple[Pixels, Labels]:
    """Return pixels from 0 to 255, (examples, 28, 28), and labels, (examples,)."""
    import torch

    values = _values()
    small = torch.from_numpy(values[:, :64]).reshape(-1, 1, 8, 8) * (255 / 16)
    # 8×8 becomes 24×24 with a frame of two, as MNIST's digits lie in 28×28.
    large = torch.nn.functional.interpolate(small, size=(24, 24), mode="bilinear", align_corners=False)
    framed = torch.nn.functional.pad(large, (2, 2, 2, 2)).squeeze(1).numpy()
    chosen = _chosen(train=train)
    return framed[chosen], values[chosen, 64].astype(np.int64)


def _chosen(*, train: bool) -> npt.NDArray[np.int64]:
    count = len(_values())
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    test = count // TEST_SHARE
    return order[test:] if train else order[:test]


@functools.lru_cache(maxsize=1)
def _values() -> npt.NDArray[np.float32]:
    """Return (1797, 65): 64 pixels from 0 to 16, and the label; half a megabyte that a process reads once."""
    return np.loadtxt(_bundled(), np.float32, delimiter=",")


def _bundled() -> Path:
    """Return the file of `sklearn.datasets.load_digits`, without importing the 900 modules around it."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataError("--problem digits needs scikit-learn's bundled data; pip install scikit-learn")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
