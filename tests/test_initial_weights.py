import math

import numpy as np
import pytest

from featherfed.codec.layout import Layout, Tensor
from featherfed.errors import ProtocolError
from featherfed.initial_weights import AT_ONCE, InitialWeights, bounds, digest_of, drawn
from featherfed.randomness import RoundKey

LAYOUT = Layout((Tensor("a", (40, 30)), Tensor("b", (40,)), Tensor("norm", (7,))))
DRAWS = (30, 30, (1.0, 1.0))


def test_values_lie_evenly_within_their_bounds_and_constants_are_constant() -> None:
    weights = drawn(DRAWS, LAYOUT, 3)
    assert weights.dtype == np.float32
    linear, norm = weights[:1240], weights[1240:]
    bound = 1 / math.sqrt(30)
    assert np.all(np.abs(linear) <= np.float32(bound))
    assert abs(float(linear.mean())) < 4 * bound / math.sqrt(3 * 1240)
    assert float(linear.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert norm.tolist() == [1.0] * 7


def test_another_seed_or_place_gives_other_weights() -> None:
    first, other = drawn(DRAWS, LAYOUT, 3), drawn(DRAWS, LAYOUT, 4)
    assert not np.any(first[:1240] == other[:1240])
    assert not np.array_equal(first[:40], first[1200:1240])


def test_every_value_is_one_whole_number_of_24_bits_rounded_once() -> None:
    words = RoundKey(3, 0).generator("initial/0").integers(1 << 32, size=1200, dtype=np.uint32)
    low, high = bounds(30)
    exact = [low + (high - low) * (int(word) >> 8) / 2**24 for word in words]
    assert drawn(DRAWS, LAYOUT, 3)[:1200].tolist() == np.float32(exact).tolist()


def test_what_is_drawn_in_pieces_is_the_same() -> None:
    long = Layout((Tensor("a", (AT_ONCE + 4,)),))
    short = Layout((Tensor("a", (AT_ONCE,)),))
    assert np.array_equal(drawn([9], long, 0)[:AT_ONCE], drawn([9], short, 0))


def test_draws_travel_and_come_back() -> None:
    initial = InitialWeights((30, (0.0, 0.5), (1.0, 1.0)), bytes(8))
    assert initial.to_wire() == [30, [0, 0.5], [1, 1]]
    assert InitialWeights.of_wire(initial.to_wire(), bytes(8)) == initial


def test_draws_of_another_model_and_no_numbers_are_refused() -> None:
    with pytest.raises(ProtocolError, match="2 draws of initial weights for a model of 3 tensors"):
        drawn(DRAWS[:2], LAYOUT, 0)
    for draw in ((1e300, 1e300), (-1e300, 1e300)):
        with pytest.raises(ProtocolError, match="no numbers of float32"):
            drawn((30, 30, draw), LAYOUT, 0)


def test_digest_is_of_little_endian_float32() -> None:
    assert digest_of(np.zeros(0, np.float32)).hex() == "e3b0c44298fc1c14"
    assert digest_of(np.float32([1.0])) == digest_of(np.array([1.0], ">f4").astype(np.float32))
