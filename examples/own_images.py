"""Own images from folders of one's own: a photo in folder `circle` is a circle, and no list of labels is needed.

    python examples/own_images.py                # draws some pictures into ./pictures first
    python examples/own_images.py 20 ~/shapes    # 20 rounds, of your folders train/CLASS/ and test/CLASS/

    pictures/train/circle/000.png   pictures/train/square/000.png   …
    pictures/test/circle/000.png    …

Simulated phones cut pictures/train among them. On sockets each phone has a folder of its own, of which it says where
it lies; take `ff.partition` out of `examples` for that:

    fl-server serve --problem examples/own_images.py:problem --phones 10 --data-dir pictures
    fl-edge run --problem examples/own_images.py:problem --data-dir /sdcard/pictures --server ws://…
"""

import functools
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torchvision import datasets, transforms

import featherfed as ff

CLASSES = ("circle", "square", "triangle")
"""The folders, in the order of the alphabet: put yours here."""
SIDE = 32
"""Pixels; images of any size are made as large."""
TURN = transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize(0.5, 0.25)])


@functools.cache
def images(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of a folder, (images, 3, 32, 32) float32, and the numbers of their folders, (images,)."""
    pairs = list(datasets.ImageFolder(folder, TURN))
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def examples(place: ff.Place) -> ff.Examples:
    """Return one phone's images: its part of the folder `train`."""
    inputs, labels = images(Path(place.data_dir or "pictures") / "train")
    mine = torch.from_numpy(ff.partition(labels, place))
    return ff.Examples(inputs[mine], labels[mine])


def test(place: ff.Place) -> ff.Examples:
    """Return the server's images, which no phone has."""
    return ff.Examples(*images(Path(place.data_dir or "pictures") / "test"))


def model() -> nn.Module:
    """Return a small network; GroupNorm in place of BatchNorm, whose statistics would differ on every phone."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, len(CLASSES)),
    )  # fmt: skip


problem = ff.Problem(model, examples=examples, test=test, metrics={"accuracy": ff.accuracy})


def draw(folder: Path, count: int, generator: np.random.Generator) -> None:
    """Write so many pictures of each class, of any size, place and colours."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            back, ink = (tuple(generator.integers(low, low + 128, 3).tolist()) for low in (0, 128))
            picture = Image.new("RGB", (48, 48), back)
            place = (*generator.integers(16, 33, 2).tolist(), int(generator.integers(12, 18)))
            sides = {"circle": 60, "square": 4, "triangle": 3}[name]
            ImageDraw.Draw(picture).regular_polygon(place, sides, rotation=int(generator.integers(-20, 21)), fill=ink)
            picture.save(folder / name / f"{number:03}.png")


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "pictures").expanduser()
    if not folder.exists():
        draw(folder / "train", 100, np.random.default_rng(0))
        draw(folder / "test", 30, np.random.default_rng(1))
    local = ff.SGD(lr=0.05, epochs=5, batch_size=10)
    run = ff.Experiment(problem, phones=10, rounds=rounds, local=local, uplink="rotate | eden(1)", data_dir=folder)
    report = run.simulate(links="4g")
    print(f"accuracy {report.best('accuracy').metrics['accuracy']:.1%} with {report.spent.up:,} bytes up in all")
