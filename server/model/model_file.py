"""A saved model: a safetensors file whose first tensors are the model's own, then what a resumed run needs besides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from featherfed.codec.layout import Layout
from featherfed.codec.space import F32
from featherfed.errors import ConfigError
from featherfed.server.model.versions import Arrays

MODEL = "model."
"""What the names of the model's own tensors begin with."""
PHONES = "phones."
"""What those begin with of what phones hold."""


def under(prefix: str, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays under longer names, each in one piece of memory, as the file needs them."""
    return {prefix + name: np.ascontiguousarray(array) for name, array in arrays.items()}


def after(prefix: str, tensors: Arrays) -> Arrays:
    """Return the tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def titled(title: str, note: str) -> str:
    """Return a model's title, which ends in a note where there is one."""
    return f"{title}, {note}" if note else title


def write_model(path: Path, layout: Layout, weights: F32, others: Arrays, *, title: str) -> None:
    """Write `weights`, (parameters,) float32, as the layout's tensors, and `others` by their names."""
    tensors = {
        f"{MODEL}{tensor.name}": np.ascontiguousarray(weights[place].reshape(tensor.shape))
        for tensor, place in layout.slices()
    }
    # One entry: safetensors writes several in an order of their own, and equal models shall be equal files.
    # Straight from the tensors to the file: its bytes would be two more of each.
    save_file(tensors | dict(others), path, metadata={"model": title})


class OtherModelError(ConfigError):
    """A file with another model than the problem has now; `tensors` are the shapes that it has, by name."""

    def __init__(self, sentence: str, tensors: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(sentence)
        self.tensors = dict(tensors)


def read_model(path: Path, layout: Layout) -> tuple[F32, Arrays]:
    """Return the weights, (parameters,) float32, and all tensors by name.

    Raises `ConfigError`, an `OtherModelError` where the file's model has other tensors than the layout.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read the model {path}: {error}") from error
    there = {name: array.shape for name, array in after(MODEL, tensors).items()}
    wanted = {tensor.name: tensor.shape for tensor in layout.tensors}
    if there != wanted:
        name = next(name for name in [*wanted, *there] if there.get(name) != wanted.get(name))
        raise OtherModelError(
            f"{path} has another model than the problem now: tensor {name!r} is {_shape(there.get(name))} there and"
            f" {_shape(wanted.get(name))} here",
            there,
        )
    return np.concatenate([tensors[f"{MODEL}{tensor.name}"].ravel() for tensor in layout.tensors]), tensors


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "×".join(map(str, shape)) or "one number"
