"""Data sets whose downloads cannot be tried here: their loaders read small files in the right format."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featherfed.errors import DataError
from featherfed.learning.models import build
from featherfed.problem import Place
from featherfed.problem_loading import load_problem

LABELS = np.tile(np.arange(10, dtype=np.uint8), 4)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes()
    path.write_bytes(header + array.tobytes())


def images(count: int) -> np.ndarray:
    """Return images whose corner is their number, and whose second pixel of the first row is white."""
    made = np.zeros((count, 28, 28), np.uint8)
    made[:, 0, 0] = np.arange(count)
    made[:, 0, 1] = 255
    return made


@pytest.mark.parametrize(
    ("name", "title"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_relatives_of_mnist_are_read_from_torchvision_s_folders(name: str, title: str, tmp_path: Path) -> None:
    for part in ("train", "t10k"):
        write_idx(tmp_path / title / "raw" / f"{part}-images-idx3-ubyte", images(40))
        write_idx(tmp_path / title / "raw" / f"{part}-labels-idx1-ubyte", LABELS)
    problem, place = load_problem(name), Place(of=4, partition="shards:1", data_dir=str(tmp_path))
    shards = [problem.examples(replace(place, index=index)) for index in range(4)]
    assert [tuple(shard.parts[0].shape) for shard in shards] == [(10, 1, 28, 28)] * 4
    assert all(len(shard.targets.unique()) <= 3 for shard in shards)
    test = problem.test_examples(place)
    assert test is not None and test.targets.tolist() == LABELS.tolist()
    corner = test.parts[0][:, 0, 0, 0]
    assert torch.allclose((corner[1:] - corner[:-1]) * (corner[-1] - corner[0]).reciprocal(), torch.tensor(1 / 39))


@pytest.mark.parametrize(
    ("name", "split", "first", "classes"),
    [("emnist", "balanced", 0, 47), ("emnist-letters", "letters", 1, 26), ("emnist-byclass", "byclass", 0, 62)],
)
def test_emnist_stands_upright_and_counts_its_classes_from_zero(
    name: str, split: str, first: int, classes: int, tmp_path: Path
) -> None:
    for part in ("train", "test"):
        raw = tmp_path / "EMNIST" / "raw"
        write_idx(raw / f"emnist-{split}-{part}-images-idx3-ubyte", images(40))
        write_idx(raw / f"emnist-{split}-{part}-labels-idx1-ubyte", LABELS + np.uint8(first))
    problem = load_problem(name)
    examples = problem.examples(Place(data_dir=str(tmp_path)))
    assert sorted(set(examples.targets.tolist())) == list(range(10))
    # What is the second pixel of a row in the file is that of a column here.
    assert (examples.parts[0][:, 0, 1, 0] > examples.parts[0][:, 0, 0, 1]).all()
    assert build(problem, 0)(examples.parts[0][:2]).shape == (2, classes)


def cifar_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write CIFAR-10 of 20 images in torchvision's files, and have torchvision expect these."""
    from torchvision.datasets import CIFAR10

    base = folder / CIFAR10.base_folder
    base.mkdir(parents=True)
    sums = {}
    names = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
    for number, name in enumerate(names):
        pixels = np.full((4, 3072), number, np.uint8)
        pixels[:, :1024] = 200  # red comes first
        (base / name).write_bytes(pickle.dumps({"data": pixels, "labels": [number, 1, 2, 3]}))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    meta = base / CIFAR10.meta["filename"]
    meta.write_bytes(pickle.dumps({CIFAR10.meta["key"]: [str(number) for number in range(10)]}))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, sums[name]] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta.read_bytes()).hexdigest()})


@pytest.mark.parametrize("model", ["lite", "cnn", "resnet20"])
def test_cifar10_is_read_by_torchvision_and_fits_its_models(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_archive(tmp_path, monkeypatch)
    problem, place = load_problem(f"cifar10/{model}"), Place(1, 2, data_dir=str(tmp_path))
    examples, test = problem.examples(place), problem.test_examples(place)
    assert test is not None
    assert (tuple(examples.parts[0].shape), len(test)) == ((10, 3, 32, 32), 4)
    red, green = test.parts[0][:, 0], test.parts[0][:, 1]
    assert torch.allclose(red, torch.tensor((200 / 255 - 0.4914) / 0.2470))
    assert torch.allclose(green, torch.tensor((5 / 255 - 0.4822) / 0.2435))
    assert build(problem, 0)(test.parts[0]).shape == (4, 10)


@pytest.mark.parametrize(
    ("name", "title"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("emnist-letters", "EMNIST"), ("cifar10", "CIFAR-10")],
)
def test_without_a_network_the_ways_out_are_named(
    name: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*given: object, **named: object) -> None:
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    words = rf"cannot download {title} to .*; name a folder that holds {title} with --data-dir or FL_DATA_DIR, or use"
    with pytest.raises(DataError, match=words):
        load_problem(name).examples(Place(data_dir=str(tmp_path)))
