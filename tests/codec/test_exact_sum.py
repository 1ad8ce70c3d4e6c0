import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.codec.exact_sum import ExactSum
from featherfed.errors import CodecError

vectors = st.lists(
    st.tuples(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), st.integers(1, 1000)),
    min_size=1,
    max_size=8,
)


def total(items: list[tuple[list[float], int]]) -> ExactSum:
    result = ExactSum(3)
    for values, weight in items:
        result.add(np.array(values, np.float32), weight)
    return result


@given(vectors, st.randoms(use_true_random=False))
def test_order_does_not_matter(items: list[tuple[list[float], int]], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert total(items).mean().tobytes() == total(shuffled).mean().tobytes()


@given(vectors, st.integers(0, 8))
def test_partial_sums_merge_to_the_same_bits(items: list[tuple[list[float], int]], cut: int) -> None:
    first, second = total(items[:cut]), ExactSum.from_bytes(total(items[cut:]).to_bytes())
    first.merge(second)
    assert first.mean().tobytes() == total(items).mean().tobytes()
    assert (first.count, first.weight) == (len(items), sum(weight for _, weight in items))


@given(vectors)
def test_mean_is_the_weighted_mean(items: list[tuple[list[float], int]]) -> None:
    expected = np.average([v for v, _ in items], axis=0, weights=[w for _, w in items])
    assert np.allclose(total(items).mean(), expected, rtol=1e-6, atol=1e-6)


def test_sum_that_could_overflow_is_refused_and_left_alone() -> None:
    result = total([([1.0, 2.0, 3.0], 1)])
    before = result.to_bytes()
    with pytest.raises(CodecError, match="exceeds what a sum can hold"):
        result.add(np.full(3, 1e30, np.float32), 10)
    assert result.to_bytes() == before


@pytest.mark.parametrize("data", [b"", b"x" * 31, total([([1.0, 2.0, 3.0], 1)]).to_bytes()[:-1]])
def test_partial_sum_of_another_length_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError, match="partial sum"):
        ExactSum.from_bytes(data)


def test_one_update_cannot_take_the_room_of_the_others() -> None:
    """A poisoned update just below the limit would have every honest one after it refused."""
    result = ExactSum(1, updates=100)
    with pytest.raises(CodecError, match="exceeds what a sum can hold"):
        result.add(np.array([2.0**31], np.float32), 1)
    for _ in range(100):
        result.add(np.array([2.0**32 / 100 - 8], np.float32), 1)
    assert result.count == 100


@pytest.mark.parametrize("value", [0.5, 2.0**19, 2.0**21, 2.0**30])
def test_large_and_small_values_round_alike(value: float) -> None:
    """Two ways round: one for values below 2²⁰, and one for all others."""
    result = ExactSum(2)
    result.add(np.array([value, 1.1 * 2.0**-31], np.float32), 1)
    expected = np.rint(np.array([value, np.float32(1.1 * 2.0**-31)]) * 2.0**30) / 2.0**30
    assert np.array_equal(result.mean(), expected.astype(np.float32))


def test_rows_of_admitted_vectors_add_what_single_vectors_do() -> None:
    values = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    weights, scratch = np.array([7, 1, 600]), np.empty(60)
    rows, single = ExactSum(20), ExactSum(20)
    for row, weight in zip(values, weights, strict=True):
        single.add(row, int(weight))
        assert rows.admit(float(np.abs(row).max()), int(weight))
    with rows.adding():
        for run in (slice(0, 13), slice(13, 20)):
            rows.add_run(run.start, values[:, run], weights, scratch)
    assert rows.to_bytes() == single.to_bytes()


def test_vectors_that_may_not_fit_are_not_admitted() -> None:
    result = ExactSum(8, updates=4)
    before = result.to_bytes()
    for largest in (2.0**20, 2.0**31, float("inf"), float("nan")):
        assert not result.admit(largest, 1)
    assert result.to_bytes() == before
