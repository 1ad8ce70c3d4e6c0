"""Whole numbers come back as they were, at about their entropy, and whatever is no code of them is refused."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.stage import Reader
from featherfed.codec.whole_numbers import LARGEST, MANY, MOST_LEVELS, WEIGHTS, decode, encode, max_bytes
from featherfed.errors import CodecError

SIZES = [1000, 3, 0, 500]
NUMBERS = st.one_of(st.integers(-2, 2), st.integers(-70, 70), st.integers(1 - LARGEST, LARGEST - 1))


def laplace(scale: float, size: int, seed: int = 0) -> np.ndarray:
    """Return whole numbers that are about as those of a model's steps, (size,) int32."""
    generator = np.random.default_rng(seed)
    return np.rint(generator.laplace(0, scale, size)).astype(np.int32)


def entropy_bytes(values: np.ndarray) -> float:
    """Return the bytes of a code that knew the histogram."""
    _, counts = np.unique(values, return_counts=True)
    return float((counts * np.log2(len(values) / counts)).sum()) / 8


@pytest.mark.parametrize("scale", [0.0, 0.05, 0.2, 0.7, 3, 40, 3000, 500_000])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_what_is_encoded_is_decoded(scale: float, dtype: type) -> None:
    values = np.clip(laplace(scale, sum(SIZES)), -(LARGEST - 1), LARGEST - 1)
    if dtype is not np.int32:
        values = np.clip(values, -np.iinfo(dtype).max, np.iinfo(dtype).max)
    payload = encode(values.astype(dtype), SIZES)
    assert len(payload) <= max_bytes(SIZES)
    assert decode(Reader(payload), SIZES).tolist() == values.tolist()


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, max_size=30), min_size=1, max_size=6))
def test_any_whole_numbers_come_back(tensors: list[list[int]]) -> None:
    sizes, values = [len(tensor) for tensor in tensors], np.array([*chain(*tensors)], np.int32)
    payload = encode(values, sizes)
    assert len(payload) <= max_bytes(sizes)
    assert decode(Reader(payload), sizes).tolist() == values.tolist()


@pytest.mark.parametrize("scale", [0.1, 0.3, 1, 4])
def test_code_is_within_two_percent_of_the_entropy(scale: float) -> None:
    values = laplace(scale, 50_000)
    assert len(encode(values, [len(values)])) < 1.02 * entropy_bytes(values) + 16


@pytest.mark.parametrize("size", [MANY, MANY + 1])
def test_many_bytes_have_the_code_of_the_same_longer_numbers(size: int) -> None:
    values = np.clip(laplace(8, size), -MOST_LEVELS, MOST_LEVELS)
    assert encode(values.astype(np.int8), [size]) == encode(values, [size])


def test_tensors_that_are_alike_share_a_histogram_and_others_do_not() -> None:
    alike, other = laplace(1, 4000), laplace(0.05, 4000)
    one = encode(alike, [4000])
    assert encode(alike, [2000, 1000, 1000])[: len(one)].count(255) >= 2
    apart = len(encode(np.concatenate([alike, other]), [4000, 4000]))
    assert apart <= len(one) + len(encode(other, [4000])) + 1


def test_nothing_changed_is_a_byte_a_tensor() -> None:
    payload = encode(np.zeros(1500, np.int16), [1000, 500])
    assert len(payload) == 2
    assert not decode(Reader(payload), [1000, 500]).any()


def test_one_value_far_away_costs_few_bytes() -> None:
    values = laplace(0.3, 4000)
    far = values.copy()
    far[1234] = -1_000_000
    assert len(encode(far, [4000])) < len(encode(values, [4000])) + 12
    assert decode(Reader(encode(far, [4000])), [4000]).tolist() == far.tolist()


def test_value_beyond_the_largest_is_refused() -> None:
    with pytest.raises(CodecError, match="8388608 steps, and 8388607 is the most"):
        encode(np.array([LARGEST], np.int32), [1])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "ends 1 bytes too early"),
        (b"\xff\0", "first tensor has the histogram of the one before"),
        (bytes([MOST_LEVELS + 1]) + bytes(99), "histogram of 64 levels, at most 63"),
        (b"\x02\0\0", "bytes too early"),
        (b"\x01\0" + bytes([len(WEIGHTS)]) + b"\0", "weight 136 in a histogram, at most 135"),
        (bytes(max_bytes([9, 9]) + 1), r"bytes of whole numbers, and \d+ are the most"),
    ],
)
def test_what_is_no_code_is_refused(payload: bytes, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        decode(Reader(payload), [9, 9])


def test_range_code_that_no_encoder_writes_is_refused() -> None:
    table = b"\x81\0\0\0"
    with pytest.raises(CodecError, match="range code does not decode"):
        decode(Reader(table + b"\xff" * 12), [20])
