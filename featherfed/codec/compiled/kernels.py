"""The codecs' compiled loops as the codecs call them: each does what numpy does, to the bit, without Python's lock.

Compiled for one set of types: what comes is made to fit. What is too large, infinite or NaN is left to numpy.
"""

import threading

import numpy as np
import numpy.typing as npt

from featherfed.codec import fast
from featherfed.codec.blocks import BLOCK, count
from featherfed.codec.compiled import decoding, drawing, quantizing, rotation
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.codec.stage import U8
from featherfed.errors import LocalError
from featherfed.randomness import RoundKey

_NO_NUMBERS, _NO_SIGNS = np.zeros(0, np.float32), np.zeros(0, np.uint8)
_MOST_EACH = 128
"""Values of a code at most."""


class _Room(threading.local):
    """What a thread needs on the way."""

    def __init__(self) -> None:
        self.values = np.empty(2 * BLOCK + _MOST_EACH, np.float32)
        self.codes = np.empty(BLOCK + 2, np.uint8)
        self.magnitudes, self.chosen, self.places = np.empty((3, BLOCK + _MOST_EACH), np.float32)


class Kernels:
    """The loops of one process."""

    def __init__(self) -> None:
        self._room = _Room()

    def draw(self, seeds: npt.NDArray[np.uint32], words: int) -> U8:
        """Return what `rotate.draw_signs` draws of generators of these seeds, (rows, 4): bytes of so many words."""
        drawn = np.empty((len(seeds), words), np.uint64)
        drawing.draw(seeds.reshape(-1), words, drawn.reshape(-1))
        return drawn.astype("<u8", copy=False).view(np.uint8)

    def rotate(self, values: F32, drawn: U8, first: int, size: int, order: int, main: int, source: F32) -> bool:
        """Do `rotate.rotate_span` of one row, whose span begins at `first`; return whether it is done."""
        bits = order.bit_length() - 1
        done: bool = rotation.rotate(
            rotation.FORWARD, values, _own(source), drawn, first, size, bits, main, _NO_NUMBERS
        )  # fmt: skip
        return done

    def rotate_back(
        self, values: F32, drawn: U8, first: int, size: int, order: int, main: int, numbers: F32 | None
    ) -> bool:
        """Do `rotate.rotate_span_back` of one row, whose span begins at `first`; return whether it is done."""
        way, given = (rotation.BACK, _NO_NUMBERS) if numbers is None else (rotation.BACK_WHOLE, _own(numbers))
        done: bool = rotation.rotate(
            way, values, values, drawn, first, size, order.bit_length() - 1, main, given
        )  # fmt: skip
        return done

    def vertex(self, values: F32, each: int) -> tuple[F32, U8] | None:
        """Return the blocks' scales and the symbols of `vertex`, of one value and more; None where not done."""
        scales, symbols = np.empty(count(len(values)), np.float32), np.empty(-(-len(values) // each), np.uint8)
        room = self._room
        done = quantizing.vertex(_own(values), each, scales, symbols, room.magnitudes, room.chosen)
        return (scales, symbols) if done else None

    def eden(self, values: F32, levels: F32) -> tuple[F32, U8] | None:
        """Return the blocks' scales and the symbols of `eden`, of one value and more; None where not done."""
        scales, symbols = np.empty(count(len(values)), np.float32), np.empty(len(values), np.uint8)
        room = self._room
        done = quantizing.eden(
            _own(values), levels, scales, symbols, room.magnitudes, room.chosen, room.places
        )  # fmt: skip
        return (scales, symbols) if done else None

    def add(self, total: npt.NDArray[np.int64], values: F32, weight: float, rounder: float) -> None:
        """Add values · weight, each rounded by an addition of `rounder`, to their sum (`exact_sum`)."""
        decoding.add_values(total, _own(values), weight, rounder)

    def add_span(
        self, total: npt.NDArray[np.int64], span: slice, payloads: U8, at: int, width: int, each: int, begun: int,
        table: F32, numbers: F32, drawn: U8 | None, weights: npt.NDArray[np.float64], rounder: float, order: int,
        main: int,
    ) -> None:  # fmt: skip
        """Add a span of a part of updates, (rows, …), to `total`, the sum of that part: see `decoding.add_span`."""
        decoding.add_span(
            total, payloads.reshape(-1), payloads.shape[1], at, width, each, begun.bit_length() - 1, table,
            numbers.reshape(-1), _NO_SIGNS if drawn is None else drawn.reshape(-1), weights, rounder, span.start,
            span.stop, order.bit_length() - 1, main, drawn is not None, self._room.values, self._room.codes,
        )  # fmt: skip


KERNELS = Kernels()


def _own(values: F32) -> F32:
    """Return values as they are compiled for."""
    return values if values.flags.writeable and values.flags.c_contiguous else values.copy()


def check() -> None:
    """Code two updates, decode and add them, and compare with numpy; raises `LocalError` where a bit is another."""
    layout = Layout((Tensor("one block and more", (300,)), Tensor("three", (3,))))
    for spec in ("exact(0) | rotate | eden(2)", "exact(0) | rotate | vertex(16)"):
        pipeline = Pipeline.parse(spec)
        found = [_coded(pipeline, layout, by) for by in (KERNELS, None)]
        if found[0] != found[1]:
            raise LocalError(f"updates of {spec} by compiled loops are others than numpy's")


def _coded(pipeline: Pipeline, layout: Layout, kernels: Kernels | None) -> list[bytes]:
    key = RoundKey(0, 1, 2)
    values = key.generator("check").integers(-999, 1000, layout.size).astype(np.float32)
    with fast.trying(kernels):
        payload = pipeline.encode(values, layout, key).payload
        decoded = pipeline.decode(payload, layout, key)
        fold = pipeline.fold(layout, key)
        fold.add(payload, key, 3)
        total = ExactSum(layout.size)
        total.add(values, 3)
    return [payload, decoded.tobytes(), fold.to_bytes(), total.to_bytes()]
