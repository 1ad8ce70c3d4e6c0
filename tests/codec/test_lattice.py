"""Views on a lattice are exact: the same bits on every way from one version to another."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec import lattice
from featherfed.codec.lattice import Lattice
from featherfed.codec.layout import Layout, Tensor
from featherfed.errors import CodecError, SpecError

LAYOUT = Layout((Tensor("a", (20, 10)), Tensor("b", (9,)), Tensor("c", (50,))))
WEIGHTS = np.random.default_rng(0).standard_normal(LAYOUT.size).astype(np.float32)


def numbers(seed: int, most: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, LAYOUT.size).astype(np.int32)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(-14, 3)] * 3), st.integers(0, 1 << 13), st.integers(0, 99))
def test_two_differences_lead_to_the_bits_of_one(exponents: tuple[int, ...], most: int, seed: int) -> None:
    first, second = numbers(seed, most), numbers(seed + 100, most)
    one = lattice.moved(WEIGHTS, first + second, exponents, LAYOUT)
    two = lattice.moved(lattice.moved(WEIGHTS, first, exponents, LAYOUT), second, exponents, LAYOUT)
    assert one.tobytes() == two.tobytes()
    # Exact: what float64 makes of the same is no other number.
    steps = np.repeat([2.0**exponent for exponent in exponents], [200, 9, 50])
    exact = lattice.snapped(WEIGHTS, exponents, LAYOUT).astype(np.float64) + steps * (first + second)
    assert one.astype(np.float64).tolist() == exact.tolist()


def test_numbers_are_found_again_in_the_view() -> None:
    exponents, wanted = (-5, -9, -7), numbers(3, 1 << 10)
    origin = lattice.snapped(WEIGHTS, exponents, LAYOUT)
    view = lattice.moved(WEIGHTS, wanted, exponents, LAYOUT)
    assert lattice.nearest(view, origin, exponents, LAYOUT).tolist() == wanted.tolist()
    assert lattice.followed(view, wanted, origin, exponents, LAYOUT).tolist() == wanted.tolist()
    assert lattice.followed(view, wanted - 1, origin, exponents, LAYOUT).tolist() == wanted.tolist()


def test_initial_weights_are_moved_by_a_32nd_of_a_step_at_most() -> None:
    origin = lattice.snapped(WEIGHTS, (-5, -9, -7), LAYOUT)
    off = np.abs(origin.astype(np.float64) - WEIGHTS)
    assert off[:200].max() <= 2.0**-10 and off[200:209].max() <= 2.0**-14 and off[209:].max() <= 2.0**-12
    assert (origin * 2**13 % 1 == 0).all()


def test_weights_beyond_reach_stay_on_the_lattice() -> None:
    exponents = (-10, -10, -10)
    origin = lattice.snapped(WEIGHTS, exponents, LAYOUT)
    found = lattice.nearest(np.full(LAYOUT.size, 1e6, np.float32), origin, exponents, LAYOUT)
    view = lattice.moved(WEIGHTS, found, exponents, LAYOUT)
    assert np.abs(view).max() <= 2.0**7 + 2.0**-10
    assert lattice.snapped(view, exponents, LAYOUT).tobytes() == view.tobytes()


def test_step_is_a_power_of_two_at_or_above_factor_times_the_rms() -> None:
    step = np.zeros(LAYOUT.size, np.float32)
    step[:200], step[200:209] = 0.25, 0.3
    assert lattice.chosen(step, WEIGHTS, Fraction(1), LAYOUT) == (-2, -1, -1)
    assert lattice.chosen(step, WEIGHTS, Fraction(1, 3), LAYOUT) == (-3, -3, -3)
    assert lattice.chosen(0 * step, WEIGHTS, Fraction(1), LAYOUT) is None


def test_steps_are_never_too_fine_for_the_weights() -> None:
    step = np.full(LAYOUT.size, 1e-12, np.float32)
    exponents = lattice.chosen(step, 100 * WEIGHTS, Fraction(1), LAYOUT)
    assert exponents is not None
    view = lattice.moved(100 * WEIGHTS, numbers(1, 3), exponents, LAYOUT)
    assert np.abs(view).max() < 2.0 ** (max(exponents) + 18)


def test_difference_decodes_to_its_numbers_and_exponents() -> None:
    difference = lattice.encode(numbers(1, 2), (-4, -19, -6), LAYOUT)
    exponents, found = lattice.decode(difference, LAYOUT)
    assert exponents == (-4, -19, -6)
    assert found.tolist() == numbers(1, 2).tolist()
    assert len(difference) <= Lattice(Fraction(1)).most_bytes(LAYOUT)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (b"", "too early"),
        (b"\0\0", r"steps of 2\^-128, known are 2\^-100 to 2\^64"),
        (b"\xff\0\0", r"steps of 2\^127"),
        (b"\x80", "too early"),
        (b"\x80\0\0\xff", "first tensor has the histogram of the one before"),
    ],
)
def test_what_is_no_difference_is_refused(difference: bytes, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        lattice.decode(difference, LAYOUT)


@pytest.mark.parametrize("factor", [Fraction(0), Fraction(1, 1 << 21), Fraction(1 << 21)])
def test_factor_that_makes_no_sense_is_refused(factor: Fraction) -> None:
    with pytest.raises(SpecError, match="is not a factor from"):
        Lattice(factor)
