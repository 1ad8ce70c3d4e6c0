import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError, ConfigError
from featherfed.randomness import RoundKey
from featherfed.rules.aggregate import Aggregate, Updates
from featherfed.rules.aggregates import trimmed_mean
from featherfed.rules.checked import combined
from featherfed.rules.naming import load_aggregate
from featherfed.server.model.kept_updates import KeptUpdates

LAYOUT = Layout((Tensor("a", (5000,)),))
FLOATS = Pipeline.parse("float32")


def kept(updates: list[np.ndarray], aggregate: str, *, clip_norm: float = float("inf")) -> np.ndarray:
    round_sum = KeptUpdates(FLOATS, LAYOUT, clip_norm=clip_norm)
    for phone, update in enumerate(updates):
        key = RoundKey(0, 1, phone)
        round_sum.add(FLOATS.encode(update, LAYOUT, key).payload, key, weight=1 << 40)
    return combined(load_aggregate(aggregate), {}, round_sum.updates(RoundKey(0, 1)))[1]


ROBUST = [
    ("median", 4), ("trimmed-mean:0.45", 4), ("trimmed-mean:0.1", 1), ("krum:3", 3), ("multi-krum:3", 3),
]  # fmt: skip
ALL = ("mean", "median", "trimmed-mean:0.2", "geometric-median", "krum:1", "multi-krum:1")


def rows(updates: list[np.ndarray]) -> Updates:
    return Updates(updates, [1] * len(updates), list(range(len(updates))), RoundKey(0, 1))


def honest(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [(1 + 0.1 * generator.standard_normal(LAYOUT.size)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(("aggregate", "liars"), ROBUST)
def test_liars_do_not_move_the_model_beyond_what_honest_phones_sent(aggregate: str, liars: int) -> None:
    poisoned = honest(10 - liars) + [np.full(LAYOUT.size, 1e30, np.float32)] * liars
    result = kept(poisoned, aggregate)
    truth = np.stack(honest(10 - liars))
    assert (result >= truth.min(axis=0)).all()
    assert (result <= truth.max(axis=0)).all()
    # The mean, by contrast, goes wherever they like.
    assert np.mean(poisoned, axis=0).min() > 1e28


def test_median_is_numpys() -> None:
    for count in (1, 2, 5, 6):
        updates = honest(count)
        assert np.allclose(kept(updates, "median"), np.median(np.stack(updates), axis=0), rtol=1e-6)


def test_clipping_comes_before_the_median() -> None:
    result = kept([np.full(LAYOUT.size, 100, np.float32)] * 3, "median", clip_norm=2.0)
    assert np.linalg.norm(result) == pytest.approx(2.0, rel=1e-5)


def test_a_refused_update_is_not_kept() -> None:
    round_sum = KeptUpdates(FLOATS, LAYOUT, clip_norm=float("inf"))
    with pytest.raises(CodecError, match="too early"):
        round_sum.add(b"1234", RoundKey(0, 1, 0), 1)
    assert not len(round_sum.updates(RoundKey(0, 1)))


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
        ("trimmed-mean", "needs its share after the colon, like trimmed-mean:0.1"),
        ("trimmed-mean:0.5", "above 0 and below 0.5"),
        ("trimmed-mean:nan", "above 0 and below 0.5"),
        ("trimmed-mean:a", "share = 'a' is not a number"),
        ("median:3", "has 1 numbers after the name, and it takes no number"),
        ("krum", "needs its liars after the colon, like krum:2"),
        ("krum:0", "1 or more, like krum:2"),
        ("krum:1.5", "liars = '1.5' is not a number"),
        ("fedavg", "unknown aggregate 'fedavg'"),
    ],
)
def test_an_unknown_aggregate_is_refused_with_the_way_out(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_aggregate(text)


@pytest.mark.parametrize("aggregate", ALL[1:])
def test_updates_may_arrive_in_any_order(aggregate: str) -> None:
    updates, sums = honest(7), [KeptUpdates(FLOATS, LAYOUT, clip_norm=float("inf")) for _ in range(2)]
    for total, order in zip(sums, (range(7), (4, 2, 6, 0, 5, 1, 3)), strict=True):
        for phone in order:
            key = RoundKey(0, 1, phone)
            total.add(FLOATS.encode(updates[phone], LAYOUT, key).payload, key, weight=1)
    first, other = (combined(load_aggregate(aggregate), {}, total.updates(RoundKey(0, 1)))[1] for total in sums)
    assert first.tobytes() == other.tobytes()


def test_krum_takes_the_update_whose_neighbours_are_nearest() -> None:
    points = [np.array(point, np.float32) for point in ([0, 0], [1, 0], [0, 1], [0.3, 0.3], [50, 50])]
    rule = load_aggregate("krum:1")
    assert rule.combine({}, rows(points))[1].tolist() == points[3].tolist()
    # Of equal scores that of the lowest shard.
    same = [np.array([value], np.float32) for value in (5, 5, 5, 5, 5)]
    assert rule.combine({}, rows(same))[1] is same[0]


def test_multi_krum_is_the_mean_without_the_liars() -> None:
    updates = [*honest(8), np.full(LAYOUT.size, 1e30, np.float32), np.full(LAYOUT.size, -1e30, np.float32)]
    result = load_aggregate("multi-krum:2").combine({}, rows(updates))[1]
    assert np.allclose(result, np.mean(updates[:8], axis=0), rtol=1e-6)


def test_krum_with_fewer_updates_than_its_proof_needs_is_refused() -> None:
    rule = load_aggregate("krum:2")
    assert rule.least_updates == 7
    with pytest.raises(ConfigError, match="the aggregate krum:2 needs 7 updates, and there are 6"):
        combined(rule, {}, rows(honest(6)))


def test_geometric_median_is_where_the_sum_of_distances_is_least() -> None:
    generator = np.random.default_rng(1)
    points = [generator.standard_normal(40).astype(np.float32) for _ in range(9)]
    result = load_aggregate("geometric-median").combine({}, rows(points))[1]

    def distances(point: np.ndarray) -> float:
        return float(sum(np.linalg.norm(np.float64(point) - row) for row in points))

    # Weiszfeld to the end, in float64.
    best = np.mean(points, axis=0, dtype=np.float64)
    for _ in range(500):
        shares = np.array([1 / np.linalg.norm(best - row) for row in points])
        best = (shares[:, None] * points).sum(axis=0) / shares.sum()
    assert distances(result) <= distances(best) * (1 + 1e-4)


def test_geometric_median_stays_with_the_honest_whatever_a_minority_sends() -> None:
    updates = honest(6)
    for lie in (1e3, 1e30, 3e38):
        liars = [np.full(LAYOUT.size, lie, np.float32)] * 3
        result = load_aggregate("geometric-median").combine({}, rows([*updates, *liars]))[1]
        assert np.linalg.norm(result - np.mean(updates, axis=0)) < 20


@pytest.mark.parametrize("aggregate", ALL)
def test_rule_is_spelled_as_it_is_named(aggregate: str) -> None:
    rule = load_aggregate(aggregate)
    assert str(rule) == aggregate
    assert isinstance(rule, Aggregate)
    # What weighs by sums alone can be merged; what keeps all updates cannot.
    assert rule.mergeable is not rule.needs_all
