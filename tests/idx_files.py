"""Small files in MNIST's format and under its names."""

from collections.abc import Sequence
from pathlib import Path


def write_mnist(folder: Path, labels: Sequence[int], *, kinds: Sequence[str] = ("train", "t10k")) -> Path:
    """Write black images with these labels as the training and the test set; return the folder with the files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    count = len(labels).to_bytes(4, "big")
    for kind in kinds:
        head = bytes.fromhex("00000803") + count + (28).to_bytes(4, "big") * 2
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(head + bytes(784 * len(labels)))
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(bytes.fromhex("00000801") + count + bytes(labels))
    return raw
