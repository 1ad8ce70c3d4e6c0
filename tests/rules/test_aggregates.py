import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError, ConfigError
from featherfed.randomness import RoundKey
from featherfed.server.robust import KeptUpdates, parse_aggregate, trimmed_mean

LAYOUT = Layout((Tensor("a", (5000,)),))
FLOATS = Pipeline.parse("float32")


def kept(updates: list[np.ndarray], trim: float, *, clip_norm: float = float("inf")) -> np.ndarray:
    round_sum = KeptUpdates(FLOATS, LAYOUT, trim=trim, clip_norm=clip_norm)
    for phone, update in enumerate(updates):
        key = RoundKey(0, 1, phone)
        round_sum.add(FLOATS.encode(update, LAYOUT, key).payload, key, weight=1 << 40)
    return round_sum.mean()


def honest(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [(1 + 0.1 * generator.standard_normal(LAYOUT.size)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(("aggregate", "liars"), [("median", 4), ("trimmed-mean:0.45", 4), ("trimmed-mean:0.1", 1)])
def test_liars_do_not_move_the_model_beyond_what_honest_phones_sent(aggregate: str, liars: int) -> None:
    poisoned = honest(10 - liars) + [np.full(LAYOUT.size, 1e30, np.float32)] * liars
    result = kept(poisoned, parse_aggregate(aggregate))
    truth = np.stack(honest(10 - liars))
    assert (result >= truth.min(axis=0)).all()
    assert (result <= truth.max(axis=0)).all()
    # The mean, by contrast, goes wherever they like.
    assert np.mean(poisoned, axis=0).min() > 1e28


def test_median_is_numpys() -> None:
    for count in (1, 2, 5, 6):
        updates = honest(count)
        assert np.allclose(kept(updates, 0.5), np.median(np.stack(updates), axis=0), rtol=1e-6)


def test_nothing_added_gives_no_update() -> None:
    assert not kept([], 0.5).any()


def test_clipping_comes_before_the_median() -> None:
    result = kept([np.full(LAYOUT.size, 100, np.float32)] * 3, 0.5, clip_norm=2.0)
    assert np.linalg.norm(result) == pytest.approx(2.0, rel=1e-5)


def test_a_refused_update_is_not_kept() -> None:
    round_sum = KeptUpdates(FLOATS, LAYOUT, trim=0.5, clip_norm=float("inf"))
    with pytest.raises(CodecError, match="too early"):
        round_sum.add(b"1234", RoundKey(0, 1, 0), 1)
    assert not round_sum.mean().any()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=9),
    st.floats(0.01, 0.5),
    st.randoms(),
)
def test_order_of_arrival_changes_no_bit(rows: list[list[float]], trim: float, random: object) -> None:
    updates = np.array(rows, np.float32)
    shuffled = updates[random.sample(range(len(rows)), len(rows))]  # type: ignore[attr-defined]
    result = trimmed_mean(updates, trim)
    assert np.array_equal(result, trimmed_mean(shuffled, trim))
    # At most rounding above the largest: a mean of equal numbers is that number in float64.
    assert (result <= updates.max(axis=0)).all()
    assert (result >= updates.min(axis=0)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("medain", "did you mean 'median'"),
        ("trimmed-mean", "above 0 and below 0.5 after the colon, like trimmed-mean:0.1"),
        ("trimmed-mean:0.5", "above 0 and below 0.5"),
        ("trimmed-mean:nan", "above 0 and below 0.5"),
        ("median:3", "did you mean 'median'"),
    ],
)
def test_an_unknown_aggregate_is_refused_with_the_way_out(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_aggregate(text)
