"""A fresh code of each version's difference from the initial weights: every phone needs one, whatever it missed.

    s_t = s₀ + decode(p_t),    p_t = encode(a·(w_t − s₀))

For runs of few, long rounds: there each round's step is about as long as all of them together, so that nothing is saved
by coding the difference from the version before, and a phone that was away pays nothing for it.
"""

from dataclasses import dataclass

from featherfed.codec.downlink import INITIAL, FromInitial, Step
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey


@dataclass(frozen=True, slots=True)
class Fresh(FromInitial):
    """A version is the initial weights plus what one payload decodes to, under the version's key."""

    pipeline: Pipeline

    def __str__(self) -> str:
        return f"fresh | {self.pipeline}"

    def check(self, step: Step, layout: Layout) -> None:
        """Raise `CodecError` for another base than the initial weights, and for what no kind lets pass."""
        if step.base > INITIAL:
            raise CodecError(f"{self} from version {step.base}; each of its codes is to version {INITIAL}")
        FromInitial.check(self, step, layout)

    def most_bytes(self, layout: Layout) -> int:
        """Return the most bytes of a code."""
        return self.pipeline.max_bytes(layout)

    def moved(self, weights: F32, difference: bytes, version: int, layout: Layout, seed: int) -> F32:
        """Return `version`, given the initial weights."""
        return weights + self.pipeline.decode(difference, layout, RoundKey(seed, version))
