"""Whole numbers from the discrete Gaussian, P[x] ∝ exp(−x²/2σ²), exactly: what a floating-point Gaussian is not.

Noise of floating-point numbers has gaps that betray what it was added to (Mironov 2012). Canonne, Kamath and Steinke
(2020, arXiv 2004.00010) add whole numbers to whole numbers, and show that a vector of them gives the same zCDP as the
continuous Gaussian: ρ = Δ²/2σ² for an L2 sensitivity Δ. The sampler is after Karney (2016, arXiv 1303.6257), for a
whole σ:

    k    from 0, 1, …       with P[k] ∝ exp(−k²/2)
    j    from 0 … σ − 1     uniform
    x = ±(kσ + j)           kept with probability exp(−y(k + y/2)), y = j/σ, and −0 never

since exp(−(k + y)²/2) = exp(−k²/2) · exp(−y(k + y/2)).

A decision compares a uniform number, of which 64 bits are drawn, with a probability in float64 or in 64 bits. Where
those are too close to tell, further bits are drawn and decimals with as many digits as it takes decide: no rounding
decides anything. What is left of the exactness is the source of the bits.
"""

import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

Source = Callable[[int], bytes]
"""Returns so many random bytes: the operating system's, or a test's."""
LARGEST_SIGMA = 1 << 56
"""A value beyond 12σ comes once in 10³² draws, and int64 has room for 64σ."""
GUARD = 2.0**-44
"""How far float64's exp(−γ) may be from the truth, generously: numpy's is within four units of 2⁻⁵³."""
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
RUN = 1 << 14
"""So many are tried at a time: they stay in the processor's cache."""
_WORD = float(1 << 64)
_MOST = 32
"""No k is larger: exp(−32²/2) is below 2⁻⁷³⁸."""


class DiscreteGaussian:
    """Draws of deviation `sigma`, a whole number."""

    def __init__(self, sigma: int, *, source: Source = os.urandom, guard: float = GUARD) -> None:
        """`guard`: a test's, to have every decision made by decimals. Raises `ValueError` for a σ out of range."""
        if not 1 <= sigma <= LARGEST_SIGMA:
            raise ValueError(f"a deviation of {sigma} is not a whole number from 1 to {LARGEST_SIGMA}")
        self.sigma = sigma
        self._source = source
        self._guard = guard

    def draw(self, size: int) -> I64:
        """Return `size` independent draws, (size,) int64."""
        drawn = np.empty(size, np.int64)
        have = 0
        while have < size:
            # Some 71 % are kept.
            some = self._tried(min(RUN, (size - have) * 3 // 2 + 16))[: size - have]
            drawn[have : have + len(some)] = some
            have += len(some)
        return drawn

    def _tried(self, tries: int) -> I64:
        """Return what is kept of so many tries."""
        k, j = self._wholes(tries), self._below_sigma(tries)
        y = j / float(self.sigma)

        def exact(at: int) -> Fraction:
            share = Fraction(int(j[at]), self.sigma)
            return share * (int(k[at]) + share / 2)

        kept = self._kept(np.exp(-y * (k + y / 2)), exact)
        negative = np.unpackbits(np.frombuffer(self._source(-(-tries // 8)), np.uint8), count=tries).view(np.bool_)
        size = k * self.sigma + j
        kept &= ~(negative & (size == 0))
        return np.where(negative, -size, size)[kept]

    def _wholes(self, tries: int) -> I64:
        """Return draws of k."""
        limits, words = _limits(), self._words(tries)
        below, up_to = np.searchsorted(limits, words, "left"), np.searchsorted(limits, words, "right")
        k = (len(limits) - up_to).astype(np.int64)
        for at in np.flatnonzero(below != up_to):
            # It is a limit's whole part: a limit is a little more, and this number too.
            k[at] = self._settled(int(words[at]), lambda digits: _tails(digits)[1:])
        return k

    def _below_sigma(self, size: int) -> I64:
        """Return uniform whole numbers from 0 to σ − 1."""
        mask = np.uint64((1 << (self.sigma - 1).bit_length()) - 1)
        drawn = np.empty(size, np.int64)
        left = np.arange(size)
        while len(left):
            words = self._words(len(left)) & mask
            drawn[left] = words.astype(np.int64)
            left = left[words >= np.uint64(self.sigma)]
        return drawn

    def _kept(self, probability: npt.NDArray[np.float64], exact: Callable[[int], Fraction]) -> npt.NDArray[np.bool_]:
        """Return decisions, each true with a probability that is exp(−γ); `exact` says the γ of one of them."""
        words = self._words(len(probability))
        uniform = words / _WORD
        decisions: npt.NDArray[np.bool_] = uniform < probability
        for at in np.flatnonzero(np.abs(uniform - probability) <= self._guard):
            limits = partial(_one, exact(int(at)))
            decisions[at] = bool(self._settled(int(words[at]), limits))
        return decisions

    def _settled(self, word: int, limits: Callable[[int], list[Fraction]]) -> int:
        """Return how many limits a uniform number is below, whose first 64 bits are a word.

        `limits` gives them to so many decimal digits: within 10^−digits.
        """
        bits = 64
        while True:
            digits = bits // 3 + 10
            error, low, high = Fraction(1, 10**digits), Fraction(word, 1 << bits), Fraction(word + 1, 1 << bits)
            found = limits(digits)
            # The number is somewhere from `low` to `high`.
            surely, perhaps = sum(high <= each - error for each in found), sum(low < each + error for each in found)
            if surely == perhaps:
                return surely
            word = word << 64 | int.from_bytes(self._source(8), "little")
            bits += 64

    def _words(self, size: int) -> U64:
        return np.frombuffer(self._source(8 * size), "<u8").astype(np.uint64, copy=False)


def _exp(gamma: Fraction, digits: int) -> Fraction:
    """Return exp(−γ), γ ≥ 0, within 10^−digits."""
    if not gamma:
        return Fraction(1)
    with localcontext() as context:
        # Decimal's exp is correctly rounded, and the quotient before it moves it by a digit of γ at the most.
        context.prec = digits + len(str(int(gamma))) + 3
        return Fraction((-(Decimal(gamma.numerator) / Decimal(gamma.denominator))).exp())


def _one(gamma: Fraction, digits: int) -> list[Fraction]:
    return [_exp(gamma, digits)]


@lru_cache(maxsize=8)
def _tails(digits: int) -> list[Fraction]:
    """Return P[K ≥ k] for k = 0 … 31, within 10^−digits."""
    # What is left out, P[K ≥ 32], is below 10⁻²²²; more digits than 220 are asked for once in 2⁶⁰⁰ draws.
    masses = [_exp(Fraction(k * k, 2), digits + 3) for k in range(_MOST)]
    total = sum(masses)
    return [sum(masses[k:], Fraction(0)) / total for k in range(_MOST)]


@lru_cache(maxsize=1)
def _limits() -> U64:
    """Return ⌊2⁶⁴ · P[K ≥ k]⌋ for k from 1 on, rising, with a single 0."""
    wholes = {int(tail * (1 << 64)) for tail in _tails(40)[1:]}
    return np.array(sorted(wholes), np.uint64)
