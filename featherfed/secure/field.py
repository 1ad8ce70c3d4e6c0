"""Whole numbers modulo a prime: a secret is the value at 0 of a polynomial of which several places know one value each.

A polynomial of degree k is given by k + 1 of its values. By Lagrange, at any x that is none of their places,

    f(x) = Σᵢ yᵢ · wᵢ · L(x) / (x − xᵢ),   L(x) = Πⱼ (x − xⱼ),   wᵢ = 1 / Πⱼ≠ᵢ (xᵢ − xⱼ)

The places are small whole numbers, so that L(x) / (x − xᵢ) is divided as it is; only wᵢ is found modulo the prime, with
one inversion for all i. Python's integers take no constant time: docs/PRIVACY.md says what that means.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import prod

PRIME = (1 << 128) - 159
"""The largest prime below 2¹²⁸."""
VALUE_BYTES = 16


@lru_cache(maxsize=256)
def weights(places: tuple[int, ...], prime: int = PRIME) -> tuple[int, ...]:
    """Return wᵢ modulo the prime for each of `places`, which are different modulo the prime.

    >>> weights((1, 2)) == (PRIME - 1, 1)
    True
    """
    below = [prod([place - other for other in places if other != place]) % prime for place in places]
    # Of the product of all, one inverse; then each one's from the products of those before it.
    before = list(accumulate(below, lambda product, factor: product * factor % prime, initial=1))
    inverse = pow(before[-1], -1, prime)
    found = []
    for factor, product in zip(reversed(below), before[-2::-1], strict=True):
        found.append(inverse * product % prime)
        inverse = inverse * factor % prime
    return tuple(reversed(found))


def values_at(values: Mapping[int, int], at: Sequence[int], prime: int = PRIME) -> tuple[int, ...]:
    """Return f at each of `at`, of the polynomial of degree `len(values) - 1` with f(place) = value.

    >>> values_at({1: 5, 2: 7}, (0, 1, 3))
    (3, 5, 9)
    """
    places = tuple(values)
    terms = [(place, values[place] * weight) for place, weight in zip(places, weights(places, prime), strict=True)]
    found = []
    for x in at:
        if x in values:
            found.append(values[x] % prime)
            continue
        product = prod([x - place for place in places])
        found.append(sum([term * (product // (x - place)) for place, term in terms]) % prime)
    return tuple(found)


def points_of(secret: int, shares: Mapping[int, int], count: int, prime: int = PRIME) -> tuple[int, ...]:
    """Return f(−1) … f(−count) of the polynomial with f(0) = secret and f(place) = share for each of `shares`.

    With `count` = k + 1 − t of k shares, any t shares and these give the secret; with t − 1 it may still be any.

    >>> points_of(3, {1: 5, 2: 7}, 2) == (1, PRIME - 1)
    True
    """
    return values_at({0: secret, **shares}, range(-1, -count - 1, -1), prime)


def secret_of(
    points: Sequence[int], shares: Mapping[int, int], at: Sequence[int] = (0,), prime: int = PRIME
) -> tuple[int, ...]:
    """Return f at each of `at`, of the polynomial that `points` (at −1, −2, …) and `shares` (by place) lie on.

    >>> secret_of((1, PRIME - 1), {2: 7}, at=(0, 1))
    (3, 5)
    """
    return values_at({-number: point for number, point in enumerate(points, start=1)} | dict(shares), at, prime)


def to_bytes(value: int) -> bytes:
    """Return a value below the prime as 16 bytes, the highest first."""
    return value.to_bytes(VALUE_BYTES, "big")


def from_bytes(data: bytes) -> int:
    """Return what 16 bytes say, taken modulo the prime.

    The 159 strings from the prime on stand for the numbers 0 … 158 too; no end writes them.
    """
    return int.from_bytes(data, "big") % PRIME
