"""A view on a lattice: whole steps from the initial weights, so that any two versions differ by small whole numbers.

    s_t = r(s₀) + Δ·k_t,    s_t = s_h + Δ·(k_t − k_h),    r(x) = x rounded to a multiple of Δ/16

Δ is a power of two for each tensor, about as long as an entry of the first round's step, so that k_t − k_h is mostly 0
and ±1 after a round, and what a phone missed costs it much less than the differences of all those rounds. All is exact:
s₀ is first rounded to sixteenths of a step (which moves a weight by a 32nd of one at most), |s| stays below 2¹⁸·Δ, and
so every view is a multiple of Δ/16 of 22 bits. A phone adds a difference to what it holds, and needs neither k nor s₀
for it. Another CPU cannot have other bits.

A difference begins with the steps: one byte, 128 + the exponent of the largest Δ, then for each tensor 4 bits, by how
many powers of two its Δ is smaller; behind them the whole numbers (`whole_numbers`). One byte 0 alone is no difference:
before the first step of the model no Δ is known.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from featherfed.codec import whole_numbers
from featherfed.codec.bits import pack, packed_bytes, unpack
from featherfed.codec.downlink import FromInitial
from featherfed.codec.layout import Layout
from featherfed.codec.space import F32
from featherfed.codec.stage import Reader, finite
from featherfed.codec.sums import product
from featherfed.codec.whole_numbers import Whole
from featherfed.errors import CodecError, SpecError

UNCHANGED = b"\0"
"""The difference of two versions that are the same."""
OFFSET = 128
FINER, FINER_BITS = 15, 4
"""A tensor's Δ is at most 2¹⁵ times finer than the largest one of the model."""
EXPONENTS = range(-100, 65)
"""Of the largest Δ."""
REACH = 17
"""Views stay within 2¹⁷·Δ."""
FURTHEST = 2.0 ** (EXPONENTS[-1] + REACH)
"""No weight of a model may be larger: with the largest Δ that is as far as a view reaches."""
STAYS = np.float32(0.75)
"""Nearer than this, in steps, a number stays as it is: weights near the middle of two steps would go to and fro.

Of `tiny` at round 16 a round's difference is 552 bytes with 1/2, 228 with 3/4 and 126 with 1; the rms of what is left
out is 0.29, 0.34 and 0.45 Δ. Dithered rounding needs 1,275 bytes, and leaves out 0.41 Δ.
"""
LARGEST_FACTOR = 1 << 20
NEVER = -(1 << 20)
"""The exponent of zero."""


@dataclass(frozen=True, slots=True)
class Lattice(FromInitial):
    """`factor` times the rms of the first round's step, up to a power of two, is a tensor's Δ."""

    factor: Fraction

    def __post_init__(self) -> None:
        if not Fraction(1, LARGEST_FACTOR) <= self.factor <= LARGEST_FACTOR:
            raise SpecError(
                f"lattice({self.factor}) is not a factor from 1/{LARGEST_FACTOR} to {LARGEST_FACTOR}, like lattice(1)"
            )

    def __str__(self) -> str:
        return f"lattice({self.factor})"

    def most_bytes(self, layout: Layout) -> int:
        """Return the most bytes of a difference."""
        return head_bytes(layout) + whole_numbers.max_bytes(_sizes(layout))

    def moved(self, weights: F32, difference: bytes, version: int, layout: Layout, seed: int) -> F32:
        """Return what a version becomes by a difference."""
        exponents, steps = decode(difference, layout)
        return moved(weights, steps, exponents, layout)


def head_bytes(layout: Layout) -> int:
    """Return the bytes before the whole numbers."""
    return 1 + packed_bytes(len(layout.tensors), FINER_BITS)


def encode(numbers: Whole, exponents: Sequence[int], layout: Layout) -> bytes:
    """Return the difference of whole numbers, (parameters,), on the lattice with these exponents."""
    largest = max(exponents)
    finer = np.array([largest - exponent for exponent in exponents], np.uint8)
    return bytes([OFFSET + largest]) + pack(finer, FINER_BITS) + whole_numbers.encode(numbers, _sizes(layout))


def decode(difference: bytes, layout: Layout) -> tuple[tuple[int, ...] | None, npt.NDArray[np.int32]]:
    """Return the exponents (None where nothing changes) and the whole numbers, (parameters,); raises `CodecError`."""
    if difference == UNCHANGED:
        return None, np.zeros(layout.size, np.int32)
    payload = Reader(difference)
    exponents = read_exponents(payload, layout)
    return exponents, whole_numbers.decode(payload, _sizes(layout))


def read_exponents(payload: Reader, layout: Layout) -> tuple[int, ...]:
    """Take the exponents from the front of a difference."""
    largest = payload.take(1)[0] - OFFSET
    if largest not in EXPONENTS:
        raise CodecError(f"steps of 2^{largest}, known are 2^{EXPONENTS[0]} to 2^{EXPONENTS[-1]}")
    tensors = len(layout.tensors)
    finer = unpack(payload.take(packed_bytes(tensors, FINER_BITS)), tensors, FINER_BITS)
    return tuple(largest - int(number) for number in finer)


def moved(weights: F32, numbers: Whole, exponents: Sequence[int] | None, layout: Layout) -> F32:
    """Return r(weights) + Δ·numbers, (parameters,) float32."""
    if exponents is None:
        return weights
    result = snapped(weights, exponents, layout)
    for (_, place), exponent in zip(layout.slices(), exponents, strict=True):
        result[place] += numbers[place].astype(np.float32) * np.float32(2.0**exponent)
    return finite(result)


def chosen(step: F32, initial: F32, factor: Fraction, layout: Layout) -> tuple[int, ...] | None:
    """Return the exponents for a run whose first step is `step`, (parameters,); None where it is zero everywhere.

    A tensor that did not move has the largest Δ of the others.
    """
    if not step.any():
        return None
    wanted, reaching = [], []
    for tensor, place in layout.slices():
        rms = math.sqrt(product(step[place], step[place]) / max(tensor.size, 1))
        wanted.append(_exponent(float(factor) * rms))
        reaching.append(_exponent(float(np.abs(initial[place]).max(initial=0))) - REACH)
    largest = min(max(*wanted, *reaching, EXPONENTS[0]), EXPONENTS[-1])
    finest = [max(reach, largest - FINER, EXPONENTS[0]) for reach in reaching]
    return tuple(
        largest if exponent == NEVER else min(max(exponent, least), largest)
        for exponent, least in zip(wanted, finest, strict=True)
    )


def _exponent(number: float) -> int:
    """Return the least e with 2^e ≥ number; `NEVER` for 0."""
    share, exponent = math.frexp(number)
    return exponent - (share == 0.5) if number else NEVER


def nearest(weights: F32, origin: F32, exponents: Sequence[int], layout: Layout) -> npt.NDArray[np.int32]:
    """Return the whole numbers k, (parameters,), with which origin + Δ·k is nearest to weights, within reach."""
    numbers = np.empty(layout.size, np.int32)
    for place, steps in _steps(weights, origin, exponents, layout):
        numbers[place] = np.rint(steps)
    return numbers


def followed(weights: F32, held: Whole, origin: F32, exponents: Sequence[int], layout: Layout) -> npt.NDArray[np.int32]:
    """Return `nearest`, but where weights are within `STAYS` of a step of the numbers held so far, those."""
    numbers = np.empty(layout.size, np.int32)
    for place, steps in _steps(weights, origin, exponents, layout):
        stays = np.abs(steps - held[place].astype(np.float32)) <= STAYS
        numbers[place] = np.where(stays, held[place], np.rint(steps))
    return numbers


def _steps(weights: F32, origin: F32, exponents: Sequence[int], layout: Layout) -> Iterator[tuple[slice, F32]]:
    """Yield each tensor's place, and (weights − origin)/Δ of it, the weights within reach; float32 throughout."""
    for (_, place), exponent in zip(layout.slices(), exponents, strict=True):
        most = np.float32(2.0 ** (exponent + REACH))
        steps = np.clip(weights[place], -most, most)
        steps -= origin[place]
        steps *= np.float32(2.0**-exponent)
        yield place, steps


def snapped(weights: F32, exponents: Sequence[int], layout: Layout) -> F32:
    """Return r(weights), (parameters,): each rounded to a sixteenth of its step, ties to even; for |x| < 2¹⁸·Δ."""
    result = np.empty_like(weights)
    for (_, place), exponent in zip(layout.slices(), exponents, strict=True):
        # Numbers from 2^23·Δ/16 to 2^24·Δ/16 are those multiples: the sum is rounded to them.
        shift = np.float32(1.5 * 2.0 ** (exponent + 19))
        np.add(weights[place], shift, out=result[place])
        result[place] -= shift
    return result


def _sizes(layout: Layout) -> list[int]:
    return [tensor.size for tensor in layout.tensors]
