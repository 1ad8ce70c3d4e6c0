from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from featherfed.server.cohort import choose_cohort


@given(st.sets(st.integers(0, 200), max_size=50), st.integers(0, 60), st.integers(0, 3), st.integers(1, 9))
def test_cohort_is_sorted_distinct_and_there(present: set[int], size: int, seed: int, number: int) -> None:
    cohort = choose_cohort(present, size, seed=seed, round_number=number, attempt=0)
    assert list(cohort) == sorted(set(cohort))
    assert set(cohort) <= present
    assert len(cohort) == min(size, len(present))


@given(st.permutations(range(20)))
def test_order_of_arrival_decides_nothing(present: list[int]) -> None:
    expected = choose_cohort(range(20), 5, seed=3, round_number=2, attempt=0)
    assert choose_cohort(present, 5, seed=3, round_number=2, attempt=0) == expected


@given(st.integers(0, 19), st.integers(1, 50))
def test_phone_that_is_gone_changes_at_most_one_more(gone: int, number: int) -> None:
    whole = set(choose_cohort(range(20), 6, seed=0, round_number=number, attempt=0))
    others = set(choose_cohort(set(range(20)) - {gone}, 6, seed=0, round_number=number, attempt=0))
    assert whole - {gone} <= others
    assert len(others - whole) == (gone in whole)


def test_seed_round_and_attempt_each_give_another_cohort() -> None:
    first = choose_cohort(range(100), 10, seed=0, round_number=1, attempt=0)
    assert first != choose_cohort(range(100), 10, seed=1, round_number=1, attempt=0)
    assert first != choose_cohort(range(100), 10, seed=0, round_number=2, attempt=0)
    assert first != choose_cohort(range(100), 10, seed=0, round_number=1, attempt=1)


def test_every_phone_is_asked_about_equally_often() -> None:
    counts: Counter[int] = Counter()
    for number in range(1, 1001):
        counts.update(choose_cohort(range(20), 5, seed=0, round_number=number, attempt=0))
    # Binomial(1000, 1/4): mean 250, σ 13.7; five σ on each side.
    assert min(counts.values()) > 181
    assert max(counts.values()) < 319
