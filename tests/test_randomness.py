import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featherfed.randomness import SERVER, RoundKey, bit_generators, derive

PLACES = st.tuples(
    st.integers(0, 2**64), st.integers(0, 2**32), st.integers(-1, 2**32), st.sampled_from(["encode", "mask", "a/1"])
)


@given(PLACES, PLACES)
def test_two_places_share_their_bits_only_if_they_are_one(first: tuple, second: tuple) -> None:
    assert (derive(*first) == derive(*second)) == (first == second)


@given(PLACES)
def test_bits_are_128_and_the_same_again(place: tuple) -> None:
    assert 0 <= derive(*place) < 2**128
    assert derive(*place) == derive(*place)


def test_each_of_seed_round_client_and_purpose_matters() -> None:
    bits = {derive(0, 1, 2, "mask"), derive(9, 1, 2, "mask"), derive(0, 9, 2, "mask"), derive(0, 1, 9, "mask"),
            derive(0, 1, 2, "rotate")}  # fmt: skip
    assert len(bits) == 5


def test_digits_can_not_slip_from_one_field_to_the_next() -> None:
    assert derive(1, 11, 1, "x") != derive(11, 1, 1, "x")
    assert derive(0, 1, 2, "a") != derive(0, 1, 2, "a/")


def test_generator_is_the_same_in_another_process() -> None:
    here = RoundKey(7, 3, 2).generator("mask").integers(0, 1 << 62, 4).tolist()
    program = (
        "from featherfed.randomness import RoundKey;"
        "print(RoundKey(7, 3, 2).generator('mask').integers(0, 1 << 62, 4).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert str(here) == there.strip()


def test_shared_key_is_one_for_all_clients_of_a_round_and_another_in_the_next() -> None:
    assert RoundKey(1, 2, 3).shared() == RoundKey(1, 2, 4).shared() == RoundKey(1, 2, SERVER)
    assert RoundKey(1, 2, 3).shared() != RoundKey(1, 3, 3).shared()


def test_clients_draws_are_uncorrelated() -> None:
    draws = np.array([RoundKey(0, 1, client).generator("noise").standard_normal(4000) for client in range(12)])
    off_diagonal = np.corrcoef(draws)[~np.eye(12, dtype=bool)]
    # Independent draws correlate by 1/√4000 = 0.016; five σ.
    assert np.abs(off_diagonal).max() < 0.08


def test_a_generator_is_numpys_for_the_derived_number() -> None:
    for client in range(20):
        expected = np.random.PCG64(derive(1, 2, client, "mask"))
        assert RoundKey(1, 2, client).generator("mask").bit_generator.state == expected.state


@given(st.lists(st.integers(-1, 2**32), min_size=1, max_size=5), st.integers(0, 2**64))
def test_generators_that_are_seeded_together_are_those_that_are_seeded_alone(clients: list[int], seed: int) -> None:
    keys = [RoundKey(seed, 3, client) for client in clients]
    for purpose, made in zip(("rotate/0", "x"), bit_generators(keys, ["rotate/0", "x"]), strict=True):
        for key, together in zip(keys, made, strict=True):
            alone = key.generator(purpose).bit_generator
            assert together.state == alone.state
            assert together.random_raw(3).tolist() == alone.random_raw(3).tolist()
