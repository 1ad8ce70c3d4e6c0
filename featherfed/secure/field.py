"""Whole numbers modulo a prime: a secret is the value at 0 of a polynomial of which several places know one value each.

A polynomial of degree k is given by k + 1 of its values. By Lagrange, at any x,

    f(x) = Σᵢ yᵢ · λᵢ(x),   λᵢ(x) = Πⱼ≠ᵢ (x − xⱼ) / Πⱼ≠ᵢ (xᵢ − xⱼ)

The places are small whole numbers, so that both products are taken as they are, and only 1 / Πᵢ is found modulo the
prime. Python's integers take no constant time: docs/PRIVACY.md says what that means.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

PRIME = (1 << 128) - 159
"""The largest prime below 2¹²⁸."""
VALUE_BYTES = 16


@lru_cache(maxsize=1024)
def coefficients(places: tuple[int, ...], at: int, prime: int = PRIME) -> tuple[int, ...]:
    """Return λᵢ(at) modulo the prime for each of `places`, which are different modulo the prime.

    >>> coefficients((1, 2), 0) == (2, PRIME - 1)
    True
    """
    rows = []
    for place in places:
        others = [other for other in places if other != place]
        above, below = prod(at - other for other in others), prod(place - other for other in others)
        rows.append(above * pow(below, -1, prime) % prime)
    return tuple(rows)


def value_at(values: Mapping[int, int], at: int, prime: int = PRIME) -> int:
    """Return f(at) of the polynomial of degree `len(values) - 1` with f(place) = value for each of `values`.

    >>> value_at({1: 5, 2: 7}, 0)
    3
    """
    places = tuple(values)
    return sum(values[i] * factor for i, factor in zip(places, coefficients(places, at, prime), strict=True)) % prime


def points_of(secret: int, shares: Mapping[int, int], count: int, prime: int = PRIME) -> tuple[int, ...]:
    """Return f(−1) … f(−count) of the polynomial with f(0) = secret and f(place) = share for each of `shares`.

    With `count` = k + 1 − t of k shares, any t shares and these give the secret; with t − 1 it may still be any.

    >>> points_of(3, {1: 5, 2: 7}, 2) == (1, PRIME - 1)
    True
    """
    values = {0: secret, **shares}
    return tuple(value_at(values, -number, prime) for number in range(1, count + 1))


def secret_of(points: Sequence[int], shares: Mapping[int, int], at: Sequence[int] = (0,)) -> tuple[int, ...]:
    """Return f at each of `at`, of the polynomial that `points` (at −1, −2, …) and `shares` (by place) lie on.

    >>> secret_of((1, PRIME - 1), {2: 7}, at=(0, 1))
    (3, 5)
    """
    values = {-number: point for number, point in enumerate(points, start=1)} | dict(shares)
    return tuple(value_at(values, x) for x in at)


def to_bytes(value: int) -> bytes:
    """Return a value below the prime as 16 bytes, the highest first."""
    return value.to_bytes(VALUE_BYTES, "big")


def from_bytes(data: bytes) -> int:
    """Return what 16 bytes say, taken modulo the prime.

    The 159 strings from the prime on stand for the numbers 0 … 158 too; no end writes them.
    """
    return int.from_bytes(data, "big") % PRIME
