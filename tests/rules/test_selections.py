from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from featherfed.rules.checked import chosen
from featherfed.rules.select import PhoneFacts, SelectKey
from featherfed.rules.selections import FastLinks, RarePhones, Uniform


def choose_cohort(present: Iterable[int], size: int, *, seed: int, round_number: int, attempt: int) -> tuple[int, ...]:
    return chosen(Uniform(), [PhoneFacts(shard) for shard in present], size, SelectKey(seed, round_number, attempt))


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


@given(st.sets(st.integers(0, 59), min_size=3), st.integers(1, 9), st.integers(1, 59))
def test_uniform_choice_of_all_is_that_of_each_gateway(present: set[int], size: int, border: int) -> None:
    cohort = choose_cohort(present, size, seed=0, round_number=1, attempt=0)
    for mine in (range(border), range(border, 60)):
        asked = [shard for shard in cohort if shard in mine]
        alone = choose_cohort(present & set(mine), len(asked), seed=0, round_number=1, attempt=0)
        assert alone == tuple(asked)


def test_fast_links_are_asked_and_a_phone_without_a_rate_is_tried() -> None:
    phones = [PhoneFacts(shard, bytes_per_s=100 * shard) for shard in range(1, 20)] + [PhoneFacts(20)]
    asked: Counter[int] = Counter()
    for number in range(1, 200):
        asked.update(chosen(FastLinks(0.25), phones, 2, SelectKey(0, number, 0)))
    assert set(asked) == {16, 17, 18, 19, 20}
    # All of them, where as many are asked for.
    assert len(chosen(FastLinks(0.25), phones, 20, SelectKey(0, 1, 0))) == 20


def test_rare_phones_are_asked_whenever_they_are_there() -> None:
    last: dict[int, int] = {}
    asked: Counter[int] = Counter()
    for number in range(1, 41):
        there = [shard for shard in range(10) if shard != 9 or number % 10 == 0]
        phones = [PhoneFacts(shard, last_asked=last.get(shard, 0)) for shard in there]
        cohort = chosen(RarePhones(), phones, 3, SelectKey(0, number, 0))
        last |= dict.fromkeys(cohort, number)
        asked.update(cohort)
    assert asked[9] == 4
    assert max(asked.values()) - min(asked[shard] for shard in range(9)) <= 2
