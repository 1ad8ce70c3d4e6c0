"""Version 0 of a run's model from its seed: both ends draw it, so that it need not travel.

Each tensor is constant, or uniform between two bounds: low + (high − low)·k/2²⁴ with a whole number k of 24 bits, in
float64, rounded once to float32. Every step is one operation of IEEE 754, so the bits are the same on every CPU and in
every language; docs/PROTOCOL.md says the same in words.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.errors import ProtocolError
from featherfed.randomness import RoundKey, uniform

F32 = npt.NDArray[np.float32]

Draw = int | tuple[float, float]
"""How a tensor is drawn: n ≥ 1 is uniform between −1/√n and 1/√n, as PyTorch begins layers of n inputs; or the bounds
themselves, which for a constant are equal."""

AT_ONCE = 1 << 20
"""So many numbers are drawn at a time: in float64 they would be twice the model."""


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """How the tensors of a run's model are drawn, in their order, and the digest of what comes of it."""

    draws: tuple[Draw, ...]
    digest: bytes

    def to_wire(self) -> list[int | list[float]]:
        """Return the draws as Welcome has them; a whole number takes a byte in place of nine."""
        return [draw if isinstance(draw, int) else [_short(bound) for bound in draw] for draw in self.draws]

    @classmethod
    def of_wire(cls, draws: Iterable[int | list[float]], digest: bytes) -> "InitialWeights":
        """Return what `to_wire` was made of."""
        return cls(tuple(draw if isinstance(draw, int) else (float(draw[0]), float(draw[1])) for draw in draws), digest)


def _short(value: float) -> float:
    return int(value) if value.is_integer() else value


def bounds(draw: Draw) -> tuple[float, float]:
    """Return the bounds of a draw.

    >>> bounds(16), bounds((1.0, 1.0))
    ((-0.25, 0.25), (1.0, 1.0))
    """
    if isinstance(draw, int):
        bound = 1.0 / math.sqrt(draw)
        return -bound, bound
    return draw


def drawn(draws: Sequence[Draw], layout: Layout, seed: int) -> F32:
    """Return the weights of version 0, (parameters,) float32; raises `ProtocolError` for draws of another model."""
    if len(draws) != len(layout.tensors):
        raise ProtocolError(f"{len(draws)} draws of initial weights for a model of {len(layout.tensors)} tensors")
    weights = np.empty(layout.size, np.float32)
    for number, (draw, (_, place)) in enumerate(zip(draws, layout.slices(), strict=True)):
        low, high = bounds(draw)
        with np.errstate(over="ignore"):
            if low == high:
                weights[place] = low
            else:
                _fill(weights[place], low, high, RoundKey(seed, 0).generator(f"initial/{number}"))
    if not np.isfinite(weights).all():
        raise ProtocolError("initial weights that are no numbers of float32")
    return weights


def _fill(values: F32, low: float, high: float, generator: np.random.Generator) -> None:
    for start in range(0, len(values), AT_ONCE):
        part = values[start : start + AT_ONCE]
        # Multiples of 2⁻²⁴, which float32 holds exactly.
        exact = uniform(generator, len(part)).astype(np.float64)
        exact *= high - low
        exact += low
        part[:] = exact


def digest_of(weights: F32) -> bytes:
    """Return the first 8 bytes of SHA-256 of weights as little-endian float32."""
    return sha256(np.ascontiguousarray(weights, "<f4").data).digest()[:8]
