"""The steps of `grid`: how large one is, which one suits a sum, and what a round's sum tells of the next one's.

A step is announced as one byte s a block of coordinates, in units of the clip norm C, so that no scale is out of reach:

    Δ = C · 2^((s − 192)/8)

With σ the deviation of the coordinates of a sum of m phones, σ'² = σ² + mΔ²/12 that of the sum as it is decoded, and a
modulus of 2z deviations, 2^r Δ = 2zσ': with a = z²m/(3·4^r) the grid's share of σ'² is a, and a value wraps with
probability 2Q(z) (it is then off by 2^r Δ). In σ² the error is

    a/(1 − a) + 8z²Q(z)/(1 − a)

and z is the one for which it is least. Wrapping is a bias, so that a step rather too large is the better mistake: it is
rounded up, and made for a deviation 1.05 times what is expected.

At first nothing is known but that the sum of m phones is no longer than mC, for which σ = mC/√K for K coordinates.
Steps are made for 0.7 of that, since phones differ, and few send all of C; should all be alike, more values wrap.
Later rounds' sums say it: RMS² − nΔ²/12 of the last sum, times the square root of its ratio to the one before (½ …
4/3): half of a trend goes on, which over the first rounds of MNIST's models, IID or with two labels a phone, erred
least. A block that wrapped says nothing of its σ: it gets a step twice as large, and in the rounds after four and
eight times, if it wraps again, but none for more than C in that block alone. All is IEEE arithmetic on single numbers,
the same on every machine.
"""

import functools
import math
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from featherfed.errors import CodecError, SpecError

ZERO_STEP = 192
"""The byte of a step of C."""
MARGIN = 1.05
RATIOS = 1 / 2, 4 / 3
"""A deviation over the one before is brought between these."""
WRAPPED_FACTOR = 2.0
FLOOR = 0.2
"""Of the grid's own deviation: below that a sum says nothing of its coordinates' deviation."""
FIRST_SHARE = 0.7
"""Of the most that a sum's σ can be, in the first round."""
LEAST_SHARE = 2.0**-12
"""Of the most that a sum's σ can be: a block that was zero for long must not take many rounds to be heard again."""
OVERFLOW = 0.24
"""A sum whose RMS is above this share of the modulus has wrapped: uniform values have 0.289 of it."""
_ROOTS = (
    1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
    1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424,
)  # fmt: skip
"""2^(i/8)."""
_LEAST_Z = 15
_WRAPPED = (
    1.203, 1.122, 1.03, 0.9313, 0.8293, 0.728, 0.6303, 0.5383, 0.4538, 0.3777, 0.3105, 0.2521, 0.2022, 0.1603, 0.1255,
    0.09719, 0.07439, 0.05629, 0.04212, 0.03116, 0.0228, 0.0165, 0.01181, 0.008358, 0.005852, 0.004054, 0.002778,
    0.001883, 0.001263, 0.0008383, 0.0005504, 0.0003576, 0.0002299, 0.0001462, 9.204e-05, 5.733e-05, 3.534e-05,
    2.156e-05, 1.301e-05, 7.773e-06, 4.595e-06, 2.689e-06, 1.557e-06, 8.923e-07, 5.061e-07, 2.841e-07, 1.579e-07,
    8.682e-08, 4.725e-08, 2.546e-08,
)  # fmt: skip
"""8z²Q(z) for z = 1.5, 1.6, …; no C library is asked. tests/codec/test_steps.py derives them."""
_HEADER = struct.Struct("<QQI")


def size_of(step: int) -> float:
    """Return the step of a byte, as a multiple of the clip norm.

    >>> size_of(192), size_of(184), size_of(0)
    (1.0, 0.5, 5.960464477539063e-08)
    """
    octave, eighth = divmod(step - ZERO_STEP, 8)
    return math.ldexp(_ROOTS[eighth], octave)


_SIZES = tuple(map(size_of, range(256)))


def byte_of(size: float) -> int:
    """Return the byte of the least step of at least this multiple of the clip norm (to 10⁻⁹), 255 beyond all.

    >>> byte_of(1.0), byte_of(1.01), byte_of(1e9)
    (192, 193, 255)
    """
    return next((step for step, known in enumerate(_SIZES) if known >= size * (1 - 1e-9)), 255)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a sum of so many phones fits into r bits: the modulus in deviations, 2z, and the error in σ²."""

    z: float
    grid_share: float
    error: float

    @classmethod
    def of(cls, members: int, bits: int) -> "Fit":
        """Return the fit of least error; of what does not fit at all, an infinite error."""
        best = cls(_LEAST_Z / 10, 1.0, math.inf)
        for number, wrapped in enumerate(_WRAPPED):
            z = (number + _LEAST_Z) / 10
            share = z * z * members / (3 * 4**bits)
            if share < 1 and (error := (share + wrapped) / (1 - share)) < best.error:
                best = cls(z, share, error)
        return best


@functools.lru_cache(256)
def check_members(members: int, bits: int) -> Fit:
    """Return the fit of a sum; raises `SpecError` where its error would be larger than itself.

    >>> round(check_members(10, 4).error, 2)
    0.21
    """
    fit = Fit.of(members, bits)
    if fit.error > 1:
        most = max(m for m in range(members) if Fit.of(m, bits).error <= 1)
        enough = next(more for more in range(bits, 64) if Fit.of(members, more).error <= 0.25)
        raise SpecError(
            f"grid({bits}) has no room for the sum of {members} phones: the error would be larger than the sum;"
            f" use grid({enough}), or circles of at most {most}"
        )
    return fit


def step_for(deviation: float, members: int, bits: int) -> int:
    """Return the byte of the step for a sum of `members` whose coordinates have this deviation, in clip norms."""
    fit = check_members(members, bits)
    return byte_of(2 * fit.z * deviation / ((1 << bits) * math.sqrt(1 - fit.grid_share)))


def deviation_for(step: int, members: int, bits: int) -> float:
    """Return the deviation that a step was made for: the inverse of `step_for`, but for rounding."""
    fit = check_members(members, bits)
    return size_of(step) * (1 << bits) * math.sqrt(1 - fit.grid_share) / (2 * fit.z)


@dataclass(frozen=True, slots=True)
class StepState:
    """What the last sum says of each block: σ in clip norms, for sums of `members`, and by what to multiply it.

    A factor is the root of σ over the one before; where the block wrapped, 2, 4, …, and σ is what the step was for.
    `coordinates` is K: a run whose uplink changes to one of other coordinates begins anew.
    """

    coordinates: int
    members: int
    deviations: tuple[float, ...]
    factors: tuple[float, ...]

    def announced(self, members: int, bits: int) -> bytes:
        """Return the steps of the next round, a byte a block, for circles of at most so many."""
        # How much of the phones' updates is common is not known: the larger of what both extremes say.
        share = members / self.members
        growth = MARGIN * (share if share > 1 else math.sqrt(share))
        bound = at_most(members, self.coordinates)
        least, most = bound * LEAST_SHARE, bound * math.sqrt(len(self.deviations))
        known = zip(self.deviations, self.factors, strict=True)
        return bytes(step_for(min(max(s * factor * growth, least), most), members, bits) for s, factor in known)

    def to_bytes(self) -> bytes:
        """Return the state as it is stored with a run."""
        numbers = [*self.deviations, *self.factors]
        header = _HEADER.pack(self.coordinates, self.members, len(self.deviations))
        return header + struct.pack(f"<{len(numbers)}d", *numbers)

    @classmethod
    def from_bytes(cls, data: bytes) -> "StepState":
        """Return what `to_bytes` wrote; raises `CodecError`."""
        if len(data) < _HEADER.size:
            raise CodecError(f"state of steps of {len(data)} bytes has no header")
        coordinates, members, blocks = _HEADER.unpack_from(data)
        if len(data) != _HEADER.size + 16 * blocks or not members:
            raise CodecError(f"state of steps of {len(data)} bytes does not hold {blocks} blocks")
        numbers = struct.unpack_from(f"<{2 * blocks}d", data, _HEADER.size)
        return cls(coordinates, members, numbers[:blocks], numbers[blocks:])

    @classmethod
    def after(
        cls, before: "StepState | None", measured: Sequence[float | None], steps: bytes, wrapped: Collection[int], *,
        coordinates: int, members: int, bits: int,
    ) -> "StepState":  # fmt: skip
        """Return the state after a sum: σ of each block in its own steps, None where no phone sent any of it."""
        same = before is not None and (before.coordinates, before.members) == (coordinates, members)
        deviations, factors = [], []
        for block, (step, deviation) in enumerate(zip(steps, measured, strict=True)):
            then, factor = (before.deviations[block], before.factors[block]) if before and same else (0.0, 1.0)
            made_for = deviation_for(step, members, bits)
            if block in wrapped:
                now, factor = made_for / MARGIN, WRAPPED_FACTOR * (factor if factor >= WRAPPED_FACTOR else 1.0)
            elif deviation is None:
                now, factor = made_for / MARGIN, 1.0
            else:
                now = deviation * size_of(step)
                trend = now / then if then and factor < WRAPPED_FACTOR else 1.0
                factor = math.sqrt(min(max(trend, RATIOS[0]), RATIOS[1]))
            deviations.append(now)
            factors.append(factor)
        return cls(coordinates, members, tuple(deviations), tuple(factors))


def at_most(members: int, coordinates: int) -> float:
    """Return σ of the sum of phones that all send the same update of the clip norm, in clip norms."""
    return members / math.sqrt(max(coordinates, 1))


def first(coordinates: int, blocks: int, members: int, bits: int) -> bytes:
    """Return the steps of a round before any sum, a byte a block."""
    return bytes([step_for(FIRST_SHARE * at_most(members, coordinates), members, bits)]) * blocks
