"""How the model comes down to phones: the grammar of `--downlink`, and what each kind makes of the bytes.

::

    rotate | eden(4)           chain     a version is the one before plus decode(p): n differences after n rounds
    lattice(1)                 lattice   any two versions differ by small whole numbers: one difference for each phone
    fresh | rotate | eden(4)   fresh     a version is the initial weights plus decode(p): one code for all phones

The server's side of each is in `featherfed/server/model/`. Here are pure functions of bytes: the parts of a download,
and what the phone holds, become what it holds next.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featherfed.codec.layout import Layout
from featherfed.codec.space import F32
from featherfed.errors import CodecError

NOTHING = -1
"""The base of a download that needs nothing of what the phone holds."""
INITIAL = 0
"""The version of the initial weights."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a phone holds: the weights of `version`, and the initial ones if it keeps them; (parameters,) float32."""

    version: int = NOTHING
    weights: F32 | None = None
    initial: F32 | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A download: from version `base` (−1: nothing) to `version`, in parts of so many bytes."""

    base: int
    version: int
    lengths: tuple[int, ...]


class Downlink(ABC):
    """A kind of downlink with its settings; `str()` is its spec, written out."""

    keeps_initial: bool
    """Whether phones keep the initial weights beside the ones they train from."""

    @abstractmethod
    def check(self, step: Step, layout: Layout) -> None:
        """Raise `CodecError` for parts that no honest server sends; nothing as large as they say is made before."""
        raise NotImplementedError

    @abstractmethod
    def apply(self, step: Step, parts: Sequence[bytes], held: Held, layout: Layout, seed: int) -> Held:
        """Return what a phone holds after a download that `check` has let pass; raises `CodecError`."""
        raise NotImplementedError


class FromInitial(Downlink):
    """What `lattice` and `fresh` have in common: phones keep the initial weights, and get one difference.

    The parts of a download are the initial weights as float32, for a phone that holds nothing, and then the one
    difference; of version 0 there is none.
    """

    keeps_initial = True

    def check(self, step: Step, layout: Layout) -> None:
        """Raise `CodecError` for another number of parts, or parts that are too long."""
        lengths = list(step.lengths)
        if not step.base < step.version:
            raise CodecError(f"{self} leads from version {step.base} to {step.version}")
        expected = (step.base == NOTHING) + (step.version > INITIAL)
        if len(lengths) != expected:
            raise CodecError(
                f"{len(lengths)} parts of {self} from version {step.base} to {step.version}, which has {expected}"
            )
        whole = 4 * layout.size
        if step.base == NOTHING and (first := lengths.pop(0)) != whole:
            raise CodecError(f"initial weights of {first} bytes, and {layout.size} float32 numbers have {whole}")
        if lengths and lengths[0] > (most := self.most_bytes(layout)):
            raise CodecError(f"part of {lengths[0]} bytes exceeds the {most} bytes that {self} can need for this model")

    def apply(self, step: Step, parts: Sequence[bytes], held: Held, layout: Layout, seed: int) -> Held:
        """Return the initial weights, and the version that they or the held ones lead to."""
        initial = held.initial
        if step.base == NOTHING:
            initial = np.frombuffer(parts[0], "<f4").astype(np.float32)
            if not np.isfinite(initial).all():
                raise CodecError("initial weights are not all finite")
        weights = initial if step.base <= INITIAL else held.weights
        if weights is None or initial is None:
            raise CodecError(f"a difference to version {step.base}, which this phone does not hold")
        if step.version > INITIAL:
            weights = self.moved(weights, parts[-1], step.version, layout, seed)
        return Held(step.version, weights, initial)

    @abstractmethod
    def most_bytes(self, layout: Layout) -> int:
        """Return the most bytes of a difference."""
        raise NotImplementedError

    @abstractmethod
    def moved(self, weights: F32, difference: bytes, version: int, layout: Layout, seed: int) -> F32:
        """Return `version`, given the weights of the difference's base."""
        raise NotImplementedError
