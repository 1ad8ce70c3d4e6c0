import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featherfed.errors import ConfigError, DataError
from featherfed.problem import Examples, Place
from featherfed.problem_loading import load_problem
from featherfed.problems.idx import map_idx

from ..idx_files import write_mnist

MEAN, DEVIATION = 0.1307, 0.3081
HERE = Place()


def load(name: str, data_dir: str | None = None, *, train: bool, place: Place = HERE) -> Examples:
    problem = load_problem(name)
    place = replace(place, data_dir=data_dir)
    examples = problem.examples(place) if train else problem.test_examples(place)
    assert examples is not None
    return examples


def test_digits_need_no_folder_and_no_download() -> None:
    train, test = (load("digits", None, train=train) for train in (True, False))
    assert train.inputs.shape == (1438, 1, 28, 28)
    assert test.inputs.shape == (359, 1, 28, 28)
    assert set(test.targets.tolist()) == set(range(10))


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.cat([load("digits", None, train=train).targets for train in (True, False)])
    assert torch.bincount(labels).tolist() == np.bincount(bunch.target).tolist()
    ours = torch.cat([load("digits", None, train=train).inputs for train in (True, False)])
    # Pixels of 0 … 16 on 8×8 became 0 … 1 on 24×24.
    assert float((ours * DEVIATION + MEAN).sum()) * 16 / 9 == pytest.approx(float(bunch.images.sum()), rel=0.02)


def test_shards_of_digits_are_the_training_set() -> None:
    total = sum(len(load("digits", train=True, place=Place(index=index, of=7))) for index in range(7))
    assert total == 1438


def test_unknown_problem_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown problem 'cifar'; did you mean 'cifar10'"):
        load("cifar", None, train=True)


@pytest.mark.mnist
def test_mnist_is_whole(mnist_dir: Path) -> None:
    test = load("mnist", str(mnist_dir), train=False)
    assert test.inputs.shape == (10_000, 1, 28, 28)
    assert abs(float(test.inputs.mean())) < 0.05
    shard = load("mnist", str(mnist_dir), train=True, place=Place(7, 100, 0, "shards:2"))
    assert shard.inputs.shape == (600, 1, 28, 28)
    assert len(np.unique(shard.targets)) <= 4


@pytest.mark.mnist
def test_tuning_trains_and_tests_on_training_images_alone(mnist_dir: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (mnist_dir / "MNIST" / "raw").glob("train-*-ubyte"):
        (raw / path.name).symlink_to(path.resolve())
    (raw / "t10k-images-idx3-ubyte").touch()  # nobody may read them: these are empty
    (raw / "t10k-labels-idx1-ubyte").touch()
    whole = load("mnist", str(mnist_dir), train=True)
    train, test = (load("mnist-tuning", str(tmp_path), train=train) for train in (True, False))
    assert torch.equal(train.targets, whole.targets[:50_000])
    assert torch.equal(test.targets, whole.targets[50_000:])
    assert torch.equal(test.inputs, whole.inputs[50_000:])
    places = (Place(index, 100, 0, "shards:2") for index in range(100))
    assert sum(len(load("mnist-tuning", str(tmp_path), train=True, place=place)) for place in places) == 50_000


@pytest.mark.mnist
def test_truncated_mnist_names_the_ways_out(mnist_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(mnist_dir / "MNIST", tmp_path / "MNIST")
    images = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    images.chmod(0o644)
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"--data-dir or FL_DATA_DIR, or use --problem digits"):
        load("mnist", str(tmp_path), train=False)


def test_empty_mnist_folder_names_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(DataError, match=r"--data-dir or FL_DATA_DIR, or use --problem digits"):
        load("mnist", str(tmp_path), train=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "header is cut off"),
        (bytes.fromhex("00000803 00000001 00000001"), "not an IDX file"),
        (bytes.fromhex("00000d01 00000001") + b"\0", "not an IDX file of unsigned bytes"),
        (bytes.fromhex("00000801 00000003") + b"\0", "has 9 bytes, its header says 11"),
    ],
)
def test_file_that_is_no_idx_is_refused_with_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        map_idx(path, 1)


def test_idx_is_read_as_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(bytes.fromhex("00000803 00000002 00000001 00000003") + bytes(range(6)))
    assert map_idx(path, 3).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        (
            "mnist",
            [1, 26, 3],
            "has labels from 1 to 26, and the models tell 10 classes, 0 to 9; name a folder",
        ),
        ("mnist", [], "holds no example"),
        ("mnist-tuning", [1, 2, 3], "has 3 training examples: mnist-tuning tests on those after 50000"),
    ],
)
def test_files_that_fit_no_model_are_refused_with_a_sentence(
    name: str, labels: list[int], words: str, tmp_path: Path
) -> None:
    write_mnist(tmp_path, labels)
    for train in (True, False):
        with pytest.raises(DataError, match=words):
            load(name, str(tmp_path), train=train)


def prepare(name: str, folder: Path) -> None:
    made = load_problem(name).prepare
    assert made is not None
    made(str(folder))


def test_phone_s_data_is_looked_at_before_its_first_task(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path, [0, 9])
    prepare("mnist", tmp_path)
    prepare("digits", tmp_path / "nowhere")
    with pytest.raises(DataError, match="mnist-tuning tests on those after 50000"):
        prepare("mnist-tuning", tmp_path)
    (raw / "train-images-idx3-ubyte").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="not an IDX file"):
        prepare("mnist", tmp_path)


def test_phones_share_the_examples_that_are_there_or_else_those_of_the_data_set(tmp_path: Path) -> None:
    def shared(name: str) -> int | None:
        return load_problem(name).shared_examples(str(tmp_path))

    names = ("mnist", "mnist-tuning", "digits", "emnist", "cifar10")
    assert [shared(name) for name in names] == [60_000, 50_000, 1438, 112_800, 50_000]
    raw = write_mnist(tmp_path, [0, 9])
    assert [shared(name) for name in names] == [2, 2, 1438, 112_800, 50_000]
    (raw / "train-labels-idx1-ubyte").write_bytes(b"GIF89a")
    assert shared("mnist") == 60_000


def mapped_images(folder: Path) -> bool:
    """Whether this process has MNIST's training images in its address space."""
    return str(folder / "MNIST" / "raw" / "train-images-idx3-ubyte") in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_files_stay_mapped_for_phones_in_a_row_and_not_for_one_by_itself(tmp_path: Path) -> None:
    write_mnist(tmp_path, [0, 9, 3, 4])
    problem = load_problem("mnist")
    places = [Place(index, 2, 0, "iid", str(tmp_path)) for index in (0, 1)]
    found = [problem.examples(places[0]) for _ in range(2)]
    assert not mapped_images(tmp_path)
    found += [problem.examples(place) for place in (*reversed(places), *reversed(places))]
    assert mapped_images(tmp_path)
    for each in (found[1], found[3], found[5]):
        assert torch.equal(each.inputs, found[0].inputs) and torch.equal(each.targets, found[0].targets)
    assert torch.equal(found[2].inputs, found[4].inputs) and not torch.equal(found[2].targets, found[0].targets)
    write_mnist(tmp_path, [5, 5, 5, 5])
    assert problem.examples(places[1]).targets.tolist() == [5, 5]
    assert problem.test is not None
    problem.test(places[0])
    assert not mapped_images(tmp_path)
