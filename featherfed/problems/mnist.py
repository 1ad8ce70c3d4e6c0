"""MNIST, its two relatives in the same format, and MNIST with a test set of its own to choose settings by.

`mnist-tuning` trains on MNIST's first 50,000 training images and tests on the last 10,000: what is tuned on it is
measured on `mnist` for the first time.
"""

from pathlib import Path

from featherfed.errors import DataError
from featherfed.problem import Problem
from featherfed.problems.images import Images, Labels, Pixels, counted, image_problem, mapped

MODELS = ("tiny", "lite", "2nn", "mlp", "cnn", "cnn-fixed")
"""The first is what a run plays that names none: that of the least traffic."""
FILES = {True: "train", False: "t10k"}
HELD_OUT_FROM = 50_000


def mnist(model: str = "") -> Problem:
    """Return MNIST's problem with a model of ours (LeCun, Cortes and Burges, "The MNIST database")."""
    return image_problem("mnist", _images("MNIST", 0.1307, 0.3081), MODELS, model)


def mnist_tuning(model: str = "") -> Problem:
    """Return the problem that never touches MNIST's test images."""

    def load(folder: Path, *, train: bool) -> tuple[Pixels, Labels]:
        pixels, labels = _load("MNIST", folder, train=True)
        if len(labels) <= HELD_OUT_FROM:
            raise DataError(
                f"{folder} has {len(labels)} training examples: mnist-tuning tests on those after {HELD_OUT_FROM}"
            )
        chosen = slice(HELD_OUT_FROM) if train else slice(HELD_OUT_FROM, None)
        return pixels[chosen], labels[chosen]

    def count(folder: Path) -> int | None:
        there = _count("MNIST", folder)
        return there and min(there, HELD_OUT_FROM)

    images = Images(
        load=load, mean=[0.1307], deviation=[0.3081], classes=10, training_examples=HELD_OUT_FROM, count=count
    )  # fmt: skip
    return image_problem("mnist-tuning", images, MODELS, model)


def fashion_mnist(model: str = "") -> Problem:
    """Return the problem of ten kinds of clothes (Xiao, Rasul and Vollgraf 2017)."""
    return image_problem("fashion-mnist", _images("FashionMNIST", 0.2860, 0.3530), MODELS, model)


def kmnist(model: str = "") -> Problem:
    """Return the problem of ten cursive Japanese characters (Clanuwat et al. 2018)."""
    return image_problem("kmnist", _images("KMNIST", 0.1918, 0.3483), MODELS, model)


def _images(title: str, mean: float, deviation: float) -> Images:
    def load(folder: Path, *, train: bool) -> tuple[Pixels, Labels]:
        return _load(title, folder, train=train)

    def count(folder: Path) -> int | None:
        return _count(title, folder)

    return Images(load=load, mean=[mean], deviation=[deviation], classes=10, training_examples=60_000, count=count)


def _count(title: str, folder: Path) -> int | None:
    return counted(folder / title / "raw" / f"{FILES[True]}-labels-idx1-ubyte")


def _load(title: str, folder: Path, *, train: bool) -> tuple[Pixels, Labels]:
    def download() -> None:
        # Importing torchvision costs a phone 170 MB of private memory and seconds; so it only downloads.
        from torchvision import datasets

        getattr(datasets, title)(str(folder), download=True)

    part = FILES[train]
    return mapped(
        folder / title / "raw", f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte", download, title,
        classes=range(10),
    )  # fmt: skip
