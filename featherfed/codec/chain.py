"""A chain of differences, each in a codec pipeline: a version is the one before it plus what its payload decodes to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featherfed.codec.downlink import NOTHING, Downlink, Held, Step
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey


@dataclass(frozen=True, slots=True)
class Chain(Downlink):
    """Part i of a download leads from version base + i to base + i + 1; float32 of all may stand for them."""

    pipeline: Pipeline
    keeps_initial = False

    def __str__(self) -> str:
        return str(self.pipeline)

    def check(self, step: Step, layout: Layout) -> None:
        """Raise `CodecError` for more bytes than a model or a chain of differences can honestly have."""
        most, total = self.pipeline.max_bytes(layout), sum(step.lengths)
        if max(step.lengths) > most:
            raise CodecError(
                f"part of {max(step.lengths)} bytes exceeds the {most} bytes that {self} can need for this model"
            )
        # A server sends the whole model in place of differences that are longer.
        whole = 4 * layout.size
        if len(step.lengths) > 1 and total > whole:
            raise CodecError(f"differences of {total} bytes, and the whole model has {whole}")

    def apply(self, step: Step, parts: Sequence[bytes], held: Held, layout: Layout, seed: int) -> Held:
        """Return the base with each part added to it in float32, one after the other."""
        weights = np.zeros(layout.size, np.float32) if step.base == NOTHING else held.weights
        if weights is None:
            raise CodecError(f"a difference to version {step.base}, which this phone does not hold")
        for number, part in enumerate(parts, step.base + 1):
            weights = weights + self.pipeline.decode(part, layout, RoundKey(seed, number))
        return Held(step.version, weights, held.initial)
