"""Secrets shared by polynomials: by hand, in fractions, and by counting over a prime that is small enough to."""

import random
from collections import Counter
from fractions import Fraction
from itertools import combinations, product

import pytest

from featherfed.secure import field
from featherfed.secure.field import PRIME, points_of, secret_of, values_at


def test_the_prime_is_one() -> None:
    """By Miller and Rabin, 40 bases."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        power = pow(base, odd, PRIME)
        rows = [pow(power, 1 << step, PRIME) for step in range(twos)]
        assert power == 1 or PRIME - 1 in rows
    assert PRIME.bit_length() == 128


def test_a_parabola_by_hand() -> None:
    """f(x) = 3 + 2x + x²: f(1) = 6, f(2) = 11, f(−1) = 2, f(−2) = 3."""
    assert points_of(3, {1: 6, 2: 11}, 2) == (2, 3)
    assert secret_of((2,), {1: 6, 2: 11}) == (3,)
    assert secret_of((2, 3), {2: 11}, at=(0, 1)) == (3, 6)


@pytest.mark.parametrize("degree", [1, 2, 5, 9, 19, 39])
def test_values_are_those_of_fractions(degree: int) -> None:
    draw = random.Random(degree)
    coefficients = [draw.randrange(PRIME) for _ in range(degree + 1)]
    places = draw.sample(range(-40, 41), degree + 1)

    def f(x: int) -> int:
        return sum(c * x**power for power, c in enumerate(coefficients))

    at = [draw.randrange(-40, 41) for _ in range(6)]
    rows = []
    for x in at:
        exact = Fraction(0)
        for i in places:
            term = Fraction(f(i))
            for j in places:
                term *= Fraction(x - j, i - j) if i != j else 1
            exact += term
        assert exact == f(x)
        rows.append(int(exact) % PRIME)
    assert list(values_at({place: f(place) % PRIME for place in places}, at)) == rows


@pytest.mark.parametrize(("members", "threshold"), [(3, 1), (3, 2), (4, 2), (4, 3)])
def test_fewer_shares_than_the_threshold_leave_a_secret_anything(members: int, threshold: int) -> None:
    """Over GF(11), all own seeds and all shares counted: given points and t − 1 shares, each secret is as likely."""
    prime, neighbours = 11, members - 1
    count = neighbours + 1 - threshold
    for known in combinations(range(1, neighbours + 1), threshold - 1):
        seen: dict[tuple[int, ...], Counter[int]] = {}
        for secret, *shares in product(range(prime), repeat=neighbours + 1):
            by_place = dict(enumerate(shares, start=1))
            points = points_of(secret, by_place, count, prime)
            view = (*points, *(by_place[place] for place in known))
            seen.setdefault(view, Counter())[secret] += 1
        assert len(seen) == prime**neighbours
        assert all(counts == dict.fromkeys(range(prime), 1) for counts in seen.values())


@pytest.mark.parametrize(("members", "threshold"), [(3, 1), (4, 2), (4, 3)])
def test_any_shares_of_the_threshold_give_the_secret(members: int, threshold: int) -> None:
    prime, neighbours = 7, members - 1
    for secret, *shares in product(range(prime), repeat=neighbours + 1):
        by_place = dict(enumerate(shares, start=1))
        points = points_of(secret, by_place, neighbours + 1 - threshold, prime)
        for holders in combinations(by_place, threshold):
            given = {holder: by_place[holder] for holder in holders}
            assert secret_of(points, given, (0, *by_place), prime) == (secret, *shares)


def test_numbers_are_sixteen_bytes_with_the_highest_first() -> None:
    assert field.to_bytes(258).hex() == "00" * 14 + "0102"
    assert field.from_bytes(bytes.fromhex("ff" * 16)) == 158
