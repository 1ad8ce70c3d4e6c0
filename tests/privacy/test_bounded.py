"""Whole numbers of a clipped update: one phone moves a sum by no more than the account assumes."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from featherfed.codec.clip import clip
from featherfed.codec.steps import size_of
from featherfed.privacy.bounded import TRIES, Bound

F32 = np.float32


@settings(max_examples=300, deadline=None)
@given(
    update=stn.arrays(F32, st.integers(1, 300), elements=st.floats(-(2.0**20), 2.0**20, width=32)),
    others=stn.arrays(np.int64, st.just(300), elements=st.integers(-(2**40), 2**40)),
    byte=st.integers(100, 192),
    longest=st.floats(2.0**-20, 2.0**11, width=32),
    seed=st.integers(0, 1 << 30),
)
def test_one_phone_moves_a_sum_by_no_more_than_the_sensitivity(
    update: np.ndarray, others: np.ndarray, byte: int, longest: float, seed: int
) -> None:
    bound, others = Bound(size_of(byte), len(update)), others[: len(update)]
    wholes = bound.rounded(clip(update, longest), longest, random.Random(seed).randbytes)
    moved = sum((int(a) - int(b)) ** 2 for a, b in zip(others + wholes, others, strict=True))
    assert moved <= bound.squared and moved <= bound.sensitivity**2 * (1 + 1e-12)


@pytest.mark.parametrize("byte", [192, 160, 140])
def test_bound_is_that_of_the_paper(byte: int) -> None:
    """Kairouz et al. 2021, with β = e^−½, of a step of which C has c; the first of the two for few coordinates."""
    c = 1 / size_of(byte)
    for d in (1, 16, 10_000):
        known = min((c + math.sqrt(d)) ** 2, c * c + d / 4 + math.sqrt(2 * 0.5) * (c + math.sqrt(d) / 2))
        assert Bound(size_of(byte), d).squared == math.floor(known)
    assert Bound(size_of(byte), 1).squared == math.floor(min((c + 1) ** 2, c * c + 0.25 + c + 0.5))


def test_rounding_is_unbiased_where_it_is_seldom_done_anew() -> None:
    bound = Bound(1 / 64, 400)
    update = clip(np.random.default_rng(0).normal(0, 1, 400).astype(F32), 0.5) * F32(0.5)
    drawn = random.Random(1).randbytes
    mean = np.mean([bound.rounded(update, 0.5, drawn) for _ in range(4000)], axis=0)
    error = mean - update.astype(float) * 128
    # A rounding has a variance of a quarter at most: four and a half standard errors.
    assert np.abs(error).max() < 4.5 * 0.5 / math.sqrt(4000)


def test_two_tries_in_five_are_good_for_an_update_of_the_clip_norm() -> None:
    calls = [0]

    def counted(size: int) -> bytes:
        calls[0] += 1
        return source.randbytes(size)

    source, bound = random.Random(0), Bound(1 / 30, 1200)
    update = clip(np.random.default_rng(0).normal(0, 1, 1200).astype(F32), 1.0)
    for _ in range(500):
        bound.rounded(update, 1.0, counted)
    assert calls[0] / 500 < 1 / (1 - math.exp(-0.5))


def test_update_that_no_try_keeps_short_is_cut_towards_zero() -> None:
    """Random bytes that always round away from zero: 64 times, and then none is believed."""
    bound = Bound(1 / 4, 10_000)
    update = clip(np.full(10_000, 1.0, F32), 1.0)
    calls = []

    def zeros(size: int) -> bytes:
        calls.append(size)
        return bytes(size)

    assert not bound.rounded(update, 1.0, zeros).any()
    assert len(calls) == TRIES
