"""CIFAR-10: small colour photographs of ten kinds (Krizhevsky 2009), read by torchvision from its pickled batches."""

import functools
from pathlib import Path

import numpy as np

from featherfed.errors import DataError
from featherfed.problem import Problem
from featherfed.problems.images import Images, Labels, Pixels, fetch, image_problem, way_out

MODELS = ("lite", "cnn", "resnet20")


def cifar10(model: str = "") -> Problem:
    """Return CIFAR-10's problem with a model of ours."""
    images = Images(
        load=_load, mean=[0.4914, 0.4822, 0.4465], deviation=[0.2470, 0.2435, 0.2616], classes=10,
        training_examples=50_000, side=32,
    )  # fmt: skip
    return image_problem("cifar10", images, MODELS, model)


def _load(folder: Path, *, train: bool) -> tuple[Pixels, Labels]:
    return _batches(folder, train)


@functools.lru_cache(maxsize=1)
def _batches(folder: Path, train: bool) -> tuple[Pixels, Labels]:
    """Return (examples, 32, 32, 3) uint8 and labels; the last one asked for stays in memory, for phones in a row."""
    from torchvision.datasets import CIFAR10

    try:
        read = fetch(lambda: CIFAR10(str(folder), train=train, download=True), "CIFAR-10", folder)
    except DataError as error:
        raise DataError(f"{error}; {way_out('CIFAR-10')}") from error
    return read.data, np.asarray(read.targets, np.int64)
