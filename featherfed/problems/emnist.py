"""EMNIST: MNIST's source with letters, in its six splits (Cohen, Afshar, Tapson and van Schaik 2017).

`emnist` is the balanced split. The files hold every image transposed; here they stand upright, as MNIST's do.
"""

from pathlib import Path

import numpy as np

from featherfed.problem import Problem
from featherfed.problems.images import Images, Labels, Pixels, counted, image_problem, mapped

MODELS = ("lite", "2nn", "mlp", "cnn", "cnn-fixed", "tiny")
MEAN, DEVIATION = 0.1736, 0.3317
"""Of the balanced split's training pixels."""


def balanced(model: str = "") -> Problem:
    """Return the problem of 47 balanced classes."""
    return _problem("emnist", "balanced", 47, 112_800, model)


def letters(model: str = "") -> Problem:
    """Return the problem of 26 letters, upper and lower case as one."""
    return _problem("emnist-letters", "letters", 26, 124_800, model)


def digits(model: str = "") -> Problem:
    """Return the problem of ten digits, 280,000 of them."""
    return _problem("emnist-digits", "digits", 10, 240_000, model)


def mnist(model: str = "") -> Problem:
    """Return the problem of ten digits, as many as MNIST's."""
    return _problem("emnist-mnist", "mnist", 10, 60_000, model)


def bymerge(model: str = "") -> Problem:
    """Return the problem of 47 classes as often as they were written."""
    return _problem("emnist-bymerge", "bymerge", 47, 697_932, model)


def byclass(model: str = "") -> Problem:
    """Return the problem of all 62 classes as often as they were written."""
    return _problem("emnist-byclass", "byclass", 62, 697_932, model)


def _problem(family: str, split: str, classes: int, examples: int, model: str) -> Problem:
    # The letters are numbered from 1.
    first = 1 if split == "letters" else 0

    def file(folder: Path, part: str) -> Path:
        return folder / "EMNIST" / "raw" / f"emnist-{split}-{part}-ubyte"

    def load(folder: Path, *, train: bool) -> tuple[Pixels, Labels]:
        def download() -> None:
            from torchvision.datasets import EMNIST

            EMNIST(str(folder), split, download=True)

        part = "train" if train else "test"
        files = file(folder, f"{part}-images-idx3"), file(folder, f"{part}-labels-idx1")
        pixels, labels = mapped(
            files[0].parent, files[0].name, files[1].name, download, "EMNIST", classes=range(first, first + classes)
        )
        return pixels.transpose(0, 2, 1), labels.astype(np.int64) - first

    def count(folder: Path) -> int | None:
        return counted(file(folder, "train-labels-idx1"))

    images = Images(
        load=load, mean=[MEAN], deviation=[DEVIATION], classes=classes, training_examples=examples, count=count
    )
    return image_problem(family, images, MODELS, model)
