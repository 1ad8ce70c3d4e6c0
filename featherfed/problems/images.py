"""What problems of small images have in common: normalised pixels, and a place's share of them."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featherfed.errors import ConfigError, DataError
from featherfed.nearest import nearest
from featherfed.problem import Examples, Place, Problem, accuracy, cross_entropy, partition
from featherfed.problems.idx import map_idx
from featherfed.problems.moves import moves
from featherfed.training_settings import Setting

Pixels = npt.NDArray[np.generic]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A data set of images.

    `load(folder, train=…)` returns pixels from 0 to 255, (examples, height, width) or (examples, height, width,
    channels), and labels, (examples,), from 0 to `classes` - 1; `mean` and `deviation` are those of the training
    pixels, scaled to 0 … 1, of each channel. `training_examples` is how many there are by the data set's authors,
    `count(folder)` how many in the files that are there (None: none).
    """

    load: "Callable[..., tuple[Pixels, Labels]]"
    mean: Sequence[float]
    deviation: Sequence[float]
    classes: int
    training_examples: int
    count: "Callable[[Path], int | None] | None" = None
    side: int = 28


def data_folder(data_dir: str | None) -> Path:
    """Return the folder that holds data sets, or will: the argument, FL_DATA_DIR, or a cache of ours."""
    named = data_dir or os.environ.get("FL_DATA_DIR")
    return Path(named) if named else Path.home() / ".cache" / "featherfed"


def image_problem(family: str, images: Images, models: Sequence[str], model: str) -> Problem:
    """Return the problem of a data set and one of its models, the first where none is named."""
    chosen = model or models[0]
    if chosen not in models:
        raise ConfigError(f"unknown model {chosen!r} of problem {family}{nearest(chosen, models)}")

    def build() -> Any:
        from featherfed.problems.image_models import MODELS

        return MODELS[chosen](len(images.mean), images.classes)

    last: Place | None = None

    def examples(place: Place) -> Examples:
        # Only a place's own images become floating point: the others stay bytes in a mapped file.
        nonlocal last
        pixels, labels = images.load(data_folder(place.data_dir), train=True)
        mine = partition(labels, place)
        if last is None or last == place:
            # A phone by itself: it would hold pages that it never looks at again.
            keep_none_mapped()
        last = place
        return normalised(pixels[mine], labels[mine], images)

    def test(place: Place) -> Examples:
        pixels, labels = images.load(data_folder(place.data_dir), train=False)
        keep_none_mapped()
        return normalised(pixels, labels, images)

    def prepare(data_dir: str | None) -> None:
        images.load(data_folder(data_dir), train=True)

    def count(data_dir: str | None) -> int:
        there = images.count(data_folder(data_dir)) if images.count else None
        return images.training_examples if there is None else there

    return Problem(
        build,
        examples=examples,
        test=test,
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        settings={
            "shift": Setting(
                0,
                least=0,
                most=images.side - 1,
                help="Pixels, in each direction, that a training image is moved by at most, anew in each epoch.",
            ),
            "warp": Setting(
                0.0,
                least=0,
                most=5,
                help="How much a training image is turned, scaled and sheared: at 1 by up to 12°, 10 % and 0.1.",
            ),
            "warp_epochs": Setting(
                1, least=1, most=1000, help="Epochs until warps, and shifts beside them, are drawn anew."
            ),
        },
        augment=moves,
        prepare=prepare,
        training_examples=count,
        name=f"{family}/{chosen}",
    )


def normalised(pixels: Pixels, labels: Labels, images: Images) -> Examples:
    """Return inputs, (examples, channels, height, width) float32, normalised, and targets, (examples,) int64."""
    import torch

    values = torch.from_numpy(pixels.astype(np.float32))
    if len(images.mean) == 1:
        values = values.div_(255).sub_(images.mean[0]).div_(images.deviation[0]).unsqueeze(1)
    else:
        values = values.div_(255).sub_(torch.tensor(images.mean)).div_(torch.tensor(images.deviation))
        values = values.permute(0, 3, 1, 2).contiguous()
    return Examples(values, torch.from_numpy(labels.astype(np.int64)))


def mapped(
    raw: Path, images: str, labels: str, download: Callable[[], Any], title: str, *, classes: range
) -> tuple[Pixels, Labels]:
    """Return the pixels and labels of two IDX files in a folder, downloaded where they are not there.

    `classes` are the labels that there may be. Raises `DataError` with the way out where they cannot be had.
    """
    paths = raw / images, raw / labels
    try:
        if not all(_is_there(path) for path in paths):
            fetch(download, title, raw.parent.parent)
        return _checked(*paths, classes, tuple(map(_state, paths)))
    except DataError as error:
        raise DataError(f"{error}; {way_out(title)}") from error


@functools.lru_cache(maxsize=1)
def _checked(images: Path, labels: Path, classes: range, states: tuple[Any, ...]) -> tuple[Pixels, Labels]:
    """Map two files, and keep them mapped for the next phone of this process, while their `states` are the same.

    In a fresh map each of a phone's images is a page fault: more than half of what it takes to load its examples.
    """
    pixels, marks = map_idx(images, 3), map_idx(labels, 1)
    if len(pixels) != len(marks) or pixels.shape[1:] != (28, 28):
        raise DataError(f"{images.parent} has {len(marks)} labels for images of shape {pixels.shape}")
    if len(marks) == 0:
        raise DataError(f"{labels} holds no example")
    least, largest = int(marks.min()), int(marks.max())
    if least < classes.start or largest >= classes.stop:
        # Other data sets come under the same names.
        raise DataError(
            f"{labels} has labels from {least} to {largest}, and the models tell {len(classes)} classes,"
            f" {classes.start} to {classes.stop - 1}"
        )
    return pixels, marks


def keep_none_mapped() -> None:
    """Let files be unmapped, once nobody has their pixels."""
    _checked.cache_clear()


def _state(path: Path) -> tuple[int, int, int]:
    """Return what tells a file from another one that takes its place, or what it was from what it is."""
    try:
        known = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return known.st_ino, known.st_size, known.st_mtime_ns


def counted(labels: Path) -> int | None:
    """Return how many labels an IDX file holds; None for none, or what is no such file: whoever reads it says so."""
    try:
        return len(map_idx(labels, 1)) or None if _is_there(labels) else None
    except DataError:
        return None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def way_out(title: str) -> str:
    """Return what to do where a data set cannot be had."""
    return f"name a folder that holds {title} with --data-dir or FL_DATA_DIR, or use --problem digits, which needs none"


def fetch(download: Callable[[], Any], title: str, folder: Path) -> Any:
    """Have torchvision download a data set; raises `DataError` where it cannot."""
    try:
        return download()
    # torchvision reports a failed download as RuntimeError.
    except (OSError, RuntimeError) as error:
        # Of the places that it tried, each on a line of its own, the last one's reason.
        why = (str(error).strip() or type(error).__name__).splitlines()[-1].strip("<> ")
        raise DataError(f"cannot download {title} to {folder}: {why}") from error
