"""A chain of layers as the compiled passes walk it: its stages, and where all that lies between them is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from featherfed.compiling.emitter import LANES
from featherfed.learning.compiled import table
from featherfed.learning.compiled.table import BLOCK, CONVOLUTION, FLATTEN, LINEAR, POOL
from featherfed.learning.compiled.vectors import CHUNK, WIDTH

_OVER = CHUNK * LANES
"""Numbers behind the last of a buffer that the innermost loops may touch."""
_ALIGNED = 16
"""Numbers in a line of the cache: where a buffer begins."""


def _whole(length: int) -> int:
    return -(-length // LANES) * LANES


@dataclass(eq=False, slots=True)
class _Room:
    """Counts what is laid out one behind the other."""

    size: int = 0

    def take(self, length: int) -> int:
        begin = self.size
        self.size += -(-length // _ALIGNED) * _ALIGNED
        return begin


@dataclass(eq=False, slots=True)
class _Place:
    """Where the images (or vectors) between two layers lie: `height` × `width` × `pixel` numbers with a border."""

    channels: int
    pixel: int
    height: int = 1
    width: int = 1
    border: int = 0
    at: int = 0
    gradient: int = -1

    @property
    def row(self) -> int:
        return (self.width + 2 * self.border) * self.pixel

    @property
    def image(self) -> int:
        return (self.height + 2 * self.border) * self.row

    @property
    def first(self) -> int:
        return self.border * (self.row + self.pixel)

    def columns(self, letter: str) -> dict[str, int]:
        return {
            letter: self.at, f"{letter}_IMAGE": self.image, f"{letter}_ROW": self.row, f"{letter}_PIXEL": self.pixel,
            f"{letter}_FIRST": self.first, f"{letter}_GRADIENT": self.gradient,
        }  # fmt: skip


@dataclass(eq=False, slots=True)
class _Stage:
    kind: int
    module: nn.Module
    relu: bool = False
    columns: dict[str, int] = field(default_factory=dict)


def stages_of(modules: Sequence[nn.Module]) -> list[_Stage] | None:
    """Return a chain's stages, each with the ReLU after it; None where the compiled passes do not know their order.

    A ReLU before a pool is one after it: the largest of a window is the same, and so is whose gradient it is.
    """
    kinds = {nn.Conv2d: CONVOLUTION, nn.MaxPool2d: POOL, nn.Flatten: FLATTEN, nn.Linear: LINEAR}
    stages: list[_Stage] = []
    for module in modules:
        if type(module) is nn.ReLU:
            if not stages or stages[-1].kind == FLATTEN:
                return None
            stages[-1].relu = True
            continue
        if isinstance(module, nn.Conv2d) and not all(
            len(set(each)) == 1 for each in (module.kernel_size, module.stride, module.padding)
        ):
            return None
        stage = _Stage(kinds[type(module)], module)
        if stage.kind == POOL:
            if not stages or stages[-1].kind != CONVOLUTION:
                return None
            stage.relu, stages[-1].relu = stages[-1].relu, False
        stages.append(stage)
    # Images that nothing is done to are vectors from the beginning.
    return stages[1:] if stages[0].kind == FLATTEN else stages


def _vector(features: int) -> _Place:
    return _Place(features, _whole(features))


def _out(stage: _Stage, x: _Place, after: _Stage | None) -> _Place:
    """Return where a stage's output lies, as far as what reads it looks at it."""
    module: Any = stage.module
    if stage.kind == LINEAR:
        return _vector(module.out_features)
    if stage.kind == FLATTEN:
        return _vector(x.channels * x.height * x.width)
    if stage.kind == POOL:
        side = int(module.kernel_size)
        return _Place(x.channels, x.pixel, x.height // side, x.width // side)
    sides = [
        (size + 2 * int(padding) - kernel) // stride + 1
        for size, padding, kernel, stride in zip(
            (x.height, x.width), module.padding, module.kernel_size, module.stride, strict=True
        )
    ]
    if after is not None and after.kind == POOL:
        # What no window looks at is not computed.
        window = int(after.module.kernel_size)  # type: ignore[arg-type]
        sides = [side // window * window for side in sides]
    return _Place(module.out_channels, _whole(module.out_channels), *sides)


class Program:
    """The stages of one chain for inputs of one shape, and room for `capacity` of them."""

    def __init__(self, stages: Sequence[_Stage], shape: tuple[int, ...], capacity: int) -> None:
        """`shape`: (channels, height, width) or (features,) of one input."""
        self.capacity = capacity
        self._room, self._entries, self._counts, self._chosen = _Room(), _Room(), _Room(), _Room()
        self._places: list[npt.NDArray[np.int64]] = [np.arange(_whole(BLOCK))]
        images = stages[0].kind != LINEAR
        self.lines = shape[1] if images else 1
        place = _Place(shape[0], shape[0], *shape[1:]) if images else _vector(int(np.prod(shape)))
        weights_at = 0
        for index, stage in enumerate(stages):
            if index == 0:
                self._settle(place, stage, wanted=False)
            after = stages[index + 1] if index + 1 < len(stages) else None
            out = _out(stage, place, after)
            # The gradient before a pool is the list that the convolution makes of the one after it.
            self._settle(out, after, wanted=after is None or after.kind != POOL)
            stage.columns = {
                "KIND": stage.kind, "RELU": int(stage.relu), **place.columns("X"), **out.columns("Y"),
                "INPUTS": place.channels, "OUTPUTS": out.channels, "HEIGHT": out.height, "BREADTH": out.width,
            }  # fmt: skip
            if stage.kind == FLATTEN:
                stage.columns |= {"HEIGHT": place.height, "BREADTH": place.width}
            if stage.kind in (CONVOLUTION, LINEAR):
                size = sum(parameter.numel() for parameter in stage.module.parameters())
                stage.columns |= {"WEIGHTS": weights_at, "BIAS": weights_at + size - out.channels}
                weights_at += size
            if stage.kind == CONVOLUTION:
                self._convolution(stage, place, out, after)
                stride = stage.columns["STRIDE"]
                down, right = stride * place.row, stride * place.pixel
            elif stage.kind == POOL:
                stage.columns |= {
                    "SIDE": int(stage.module.kernel_size),  # type: ignore[arg-type]
                    "CHOSEN": self._chosen.take(capacity * out.height * out.width * out.pixel),
                    "DOWN": down, "RIGHT": right,
                }  # fmt: skip
            elif stage.kind == LINEAR:
                rows = np.arange(capacity)
                stage.columns |= {
                    "PATCHES": self._list(rows * out.image), "ENDS": self._list(rows * place.image),
                    "ROWS_OF": self._list(np.arange(BLOCK) * place.channels),
                }  # fmt: skip
                if not images:
                    inputs = np.arange(place.channels)
                    stage.columns |= {
                        "TURNED": self._room.take((place.channels + 1) * out.image),
                        "TURNED_ROWS": self._list(inputs * out.image), "NUMBERS": self._list(inputs),
                        "ENTRIES": self._entries.take(capacity * place.channels + LANES),
                        "COUNTS": self._counts.take(capacity + 1),
                        "BY_INPUT": self._entries.take(capacity * place.channels),
                        "ENDS_BY_INPUT": self._counts.take(place.channels + 1),
                    }  # fmt: skip
            place = out
        self._logits, self.classes = place, place.channels
        self.table = np.zeros((len(stages), table.COLUMNS), np.int64)
        for row, stage in zip(self.table, stages, strict=True):
            for name, value in stage.columns.items():
                row[getattr(table, name)] = value
        # The innermost loops may look at a few numbers more than there are.
        self._memory = np.zeros(self._room.size + _OVER + _ALIGNED, np.float32)
        aside = -(self._memory.ctypes.data // 4) % _ALIGNED
        self.work = self._memory[aside:][: self._room.size + _OVER]
        # What dense layers alone keep in double precision: see `dense.py`.
        self.kept = np.zeros((4, 0 if images else max(capacity, *self.table[:, table.Y_IMAGE])))
        self.state = (
            self.work, np.concatenate(self._places), np.zeros(self._chosen.size, np.int32),
            np.zeros(self._entries.size, np.int32), np.zeros(self._entries.size, np.float32),
            np.zeros(self._counts.size, np.int64), np.r_[np.zeros(WIDTH * LANES), 1.0].astype(np.float32),
        )  # fmt: skip

    @staticmethod
    def takes(stages: Sequence[_Stage], shape: tuple[int, ...]) -> bool:
        """Whether inputs of a shape go through a chain; where they do not, torch says why."""
        images = stages[0].kind != LINEAR
        if len(shape) != (3 if images else 1):
            return False
        place = _Place(shape[0], shape[0], *shape[1:]) if images else _vector(shape[0])
        for stage, after in zip(stages, [*stages[1:], None], strict=True):
            wanted = getattr(stage.module, "in_channels", None) or getattr(stage.module, "in_features", None)
            if wanted not in (None, place.channels):
                return False
            place = _out(stage, place, after)
            if min(place.height, place.width) < 1:
                return False
        return True

    def logits(self, count: int) -> npt.NDArray[np.float32]:
        """Return a copy of the first so many logits, (count, classes)."""
        place = self._logits
        return self.work[place.at :][: count * place.image].reshape(count, -1)[:, : place.channels].copy()

    def _settle(self, place: _Place, reader: _Stage | None, *, wanted: bool) -> None:
        """Give what lies between two layers its room, with the border that its reader wants."""
        if reader is not None and reader.kind == CONVOLUTION:
            place.border = int(reader.module.padding[0])  # type: ignore[index]
        place.at = self._room.take(self.capacity * place.image + _OVER)
        if wanted:
            place.gradient = self._room.take(self.capacity * place.image + _OVER)

    def _list(self, places: npt.NDArray[np.int64]) -> int:
        begin = sum(len(each) for each in self._places)
        self._places.append(places)
        return begin

    def _convolution(self, stage: _Stage, x: _Place, y: _Place, after: _Stage | None) -> None:
        module: Any = stage.module
        side, stride = module.kernel_size[0], module.stride[0]
        pooled = after is not None and after.kind == POOL
        window = int(after.module.kernel_size) if after is not None and pooled else 1  # type: ignore[arg-type]
        listed = (y.height // window) * (y.width // window)
        images = np.arange(self.capacity)[:, None, None]
        down, right = np.arange(y.height)[:, None], np.arange(y.width)
        patches = images * x.image + stride * (down * x.row + right * x.pixel)
        ends = images * y.image + y.first + down * y.row + right * y.pixel
        row = _whole(side * x.pixel)
        dense = x.gradient < 0 and not pooled
        taps = (np.arange(side)[:, None] * x.row + np.arange(side * x.pixel)).ravel()
        stage.columns |= {
            "SIDE": side, "STRIDE": stride,
            "FORWARD": self._room.take(side * side * x.pixel * y.pixel), "WIDE_BIAS": self._room.take(y.pixel),
            "BACKWARD": self._room.take(y.channels * side * row),
            "BY_WEIGHTS": self._room.take(max(y.channels * side * row, len(taps) * y.pixel)),
            "DENSE": int(dense), "TAPS": self._list(taps), "ENDS_OF_TAPS": self._list(np.arange(len(taps)) * y.pixel),
            "PATCHES": self._list(patches.ravel()), "ENDS": self._list(ends.ravel()),
            "CAPACITY": listed,
            "ENTRIES": self._entries.take(0 if dense else self.capacity * y.channels * listed + 1),
            "COUNTS": self._counts.take(self.capacity * y.channels),
        }  # fmt: skip
