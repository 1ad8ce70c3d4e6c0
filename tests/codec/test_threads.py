"""However many threads decode a batch, each update is added once, and no bit of the sum depends on their number."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from featherfed.codec import exact_sum, rows
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.fold import Update
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.threads import Threads
from featherfed.randomness import RoundKey

from .specs import ALL_SPECS

PHONES = 7
SMALL = Layout((Tensor("a", (40, 30)), Tensor("bias", (40,)), Tensor("long", (9000,)), Tensor("one", (1,))))
LONG = Layout((Tensor("long", (300_000,)), Tensor("b", (63,)), Tensor("over", (9000,))))
"""Several spans of a tensor, and several runs of the sum."""


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads share whatever there is, also where it would not pay."""
    for module in (exact_sum, rows):
        monkeypatch.setattr(module, "EACH", 1)


def batch(pipeline: Pipeline, layout: Layout, phones: int = PHONES) -> list[Update]:
    updates = []
    for client in range(phones):
        key = RoundKey(0, 1, client)
        size = pipeline.space(layout, key).size
        values = np.random.default_rng(client).standard_normal(size).astype(np.float32)
        updates.append(Update(pipeline.encode(values, layout, key).payload, key, 10 + client))
    return updates


def folded(pipeline: Pipeline, layout: Layout, updates: list[Update], threads: int, clip_norm: float) -> bytes:
    total = pipeline.fold(layout, RoundKey(0, 1), updates=len(updates), clip_norm=clip_norm, threads=Threads(threads))
    assert not any(total.add_all(updates))
    return total.to_bytes()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("clip_norm", [float("inf"), 0.5])
@pytest.mark.parametrize("spec", ALL_SPECS)
def test_no_bit_depends_on_the_number_of_threads(spec: str, clip_norm: float) -> None:
    pipeline = Pipeline.parse(spec)
    updates = batch(pipeline, SMALL)
    alone = folded(pipeline, SMALL, updates, 1, clip_norm)
    assert [folded(pipeline, SMALL, updates, threads, clip_norm) for threads in (2, 3)] == [alone, alone]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("spec", ["float32", "rotate | eden(1)", "rotate_shared | stochastic(1)", "vertex-small"])
def test_runs_of_a_large_model_go_to_several_threads(spec: str) -> None:
    pipeline = Pipeline.parse(spec)
    updates = batch(pipeline, LONG, 3)
    assert folded(pipeline, LONG, updates, 3, float("inf")) == folded(pipeline, LONG, updates, 1, float("inf"))


@pytest.mark.usefixtures("always")
def test_values_of_every_size_are_added_by_threads_to_the_same_bits() -> None:
    """Two ways round, one for values below 2²⁰."""
    vectors = [np.random.default_rng(0).standard_normal(200_000).astype(np.float32) * scale for scale in (1, 2.0**24)]
    alone, together = ExactSum(200_000, 2), ExactSum(200_000, 2)
    for values in vectors:
        alone.add(values, 3)
        together.add(values, 3, Threads(3))
    assert together.to_bytes() == alone.to_bytes()


def test_threads_that_add_to_one_sum_lose_nothing() -> None:
    total, values = ExactSum(5000, 400), np.ones(5000, np.float32)

    def take(jobs: Iterator[int]) -> None:
        for _ in jobs:
            total.add(values, 1)

    Threads(4).share(range(400), take, most=4)
    assert np.array_equal(total.mean(), values)


@pytest.mark.usefixtures("always")
def test_updates_that_are_wrong_fail_alone_whatever_thread_has_them() -> None:
    pipeline = Pipeline.parse("topk(1/20) | ternary")
    good = batch(pipeline, SMALL)
    updates = [*good[:2], Update(b"\xff", good[2].key, 1), *good[3:]]
    total = pipeline.fold(SMALL, RoundKey(0, 1), updates=PHONES, threads=Threads(3))
    assert [fault is not None for fault in total.add_all(updates)] == [False, False, True] + [False] * 4
    alone = pipeline.fold(SMALL, RoundKey(0, 1), updates=PHONES)
    assert not any(alone.add_all([*good[:2], *good[3:]]))
    assert total.to_bytes() == alone.to_bytes()


def test_each_job_goes_to_one_thread_and_several_take_part() -> None:
    taken: list[tuple[int, int]] = []
    meeting = threading.Barrier(3, timeout=30)

    def take(jobs: Iterator[int]) -> None:
        meeting.wait()
        taken.extend((job, threading.get_ident()) for job in jobs)

    Threads(3).share(range(50), take, most=9)
    assert sorted(job for job, _ in taken) == list(range(50))


@pytest.mark.parametrize(("count", "most", "jobs"), [(1, 9, 9), (4, 1, 9), (4, 0, 9), (4, 9, 1), (4, 9, 0)])
def test_work_that_is_not_worth_it_stays_in_the_thread_that_calls(count: int, most: int, jobs: int) -> None:
    calls: list[tuple[int, list[int]]] = []
    Threads(count).share(range(jobs), lambda rest: calls.append((threading.get_ident(), list(rest))), most=most)
    assert calls == [(threading.get_ident(), list(range(jobs)))]


def test_what_another_thread_raises_is_raised_once_all_are_done() -> None:
    caller, done = threading.get_ident(), []
    begun = threading.Event()

    def take(jobs: Iterator[int]) -> None:
        if threading.get_ident() != caller:
            begun.set()
            raise ZeroDivisionError("in the other one")
        assert begun.wait(30)
        done.extend(jobs)

    with pytest.raises(ZeroDivisionError, match="in the other one"):
        Threads(2).share(range(5), take, most=2)
    assert done == list(range(5))
