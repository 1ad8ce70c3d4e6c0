"""A round's sum does not depend on the order of its updates, nor on how they were divided, for any codec."""

import contextlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.codec.bits import pack, unpack
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.fold import Fold, Update
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

SPECS = ("float32", "rotate | eden(1)", "rotate_shared | stochastic(1)", "shared-4bit", "rotate_shared | qsgd(4)",
         "rotate_shared | stochastic(2) | entropy", "topk(1/20) | ternary | entropy", "vertex-tiny")  # fmt: skip
PHONES = 6


def updates(pipeline: Pipeline, layout: Layout) -> list[tuple[bytes, RoundKey, int]]:
    result = []
    for client in range(PHONES):
        key = RoundKey(0, 1, client)
        values = np.random.default_rng(client).standard_normal(layout.size).astype(np.float32)
        result.append((pipeline.encode(values, layout, key).payload, key, 10 + client))
    return result


def folded(pipeline: Pipeline, layout: Layout, items: list[tuple[bytes, RoundKey, int]]) -> Fold:
    fold = pipeline.fold(layout, RoundKey(0, 1), updates=PHONES)
    for item in items:
        fold.add(*item)
    return fold


@pytest.mark.parametrize("spec", SPECS)
def test_order_and_division_change_no_bit(spec: str, layout: Layout) -> None:
    pipeline = Pipeline.parse(spec)
    items = updates(pipeline, layout)
    together = folded(pipeline, layout, items)
    divided = folded(pipeline, layout, items[4:])
    divided.merge_bytes(folded(pipeline, layout, items[:4]).to_bytes())
    bits = together.mean().tobytes()
    assert folded(pipeline, layout, items[::-1]).mean().tobytes() == bits
    assert divided.mean().tobytes() == bits


@pytest.mark.parametrize("spec", SPECS)
def test_mean_is_that_of_the_decoded_updates(spec: str, layout: Layout) -> None:
    pipeline = Pipeline.parse(spec)
    items = updates(pipeline, layout)
    decoded = [pipeline.decode(payload, layout, key) for payload, key, _ in items]
    expected = np.average(decoded, axis=0, weights=[weight for *_, weight in items])
    mean = folded(pipeline, layout, items).mean()
    if pipeline.sums_rotated:
        # A rotation rounds to 15 bits of a block's largest value, and only one of these two is rotated back as a sum.
        assert np.linalg.norm(mean - expected) < 2e-4 * np.linalg.norm(expected)
    else:
        assert np.allclose(mean, expected, atol=1e-5)


LONG = Layout((Tensor("long", (70_000,)), Tensor("even", (8192,)), Tensor("b", (63,)), Tensor("over", (9000,))))
"""Tensors of several runs, of one block, and of blocks that overlap."""


def added_one_by_one(pipeline: Pipeline, layout: Layout, items: list[tuple[bytes, RoundKey, int]]) -> bytes:
    total = ExactSum(layout.size, len(items))
    for payload, key, weight in items:
        space = pipeline.space(layout, key)
        total.add(pipeline.coordinates(payload, space, key, rotated=pipeline.sums_rotated), weight)
    return total.mean().tobytes()


@pytest.mark.parametrize(
    "spec",
    ["rotate | eden(1)", "rotate | eden(3)", "rotate | eden(4)", "rotate_shared | stochastic(1)", "shared-2bit",
     "vertex-small", "rotate | vertex(2)", "exact(0) | rotate | vertex(32)", "exact(1) | rotate | vertex(128)"],
)  # fmt: skip
@pytest.mark.parametrize("model", [LONG, None])
def test_rows_add_the_bits_that_decoding_gives(spec: str, model: Layout | None, layout: Layout) -> None:
    pipeline, model = Pipeline.parse(spec), model or layout
    assert pipeline.in_rows
    items = updates(pipeline, model) * 4  # more than go through at once
    fold = pipeline.fold(model, RoundKey(0, 1), updates=len(items))
    assert fold.add_all([Update(*item) for item in items]) == [None] * len(items)
    # As it is: where the rotation is shared, of rotated coordinates.
    assert ExactSum.from_bytes(fold.to_bytes()).mean().tobytes() == added_one_by_one(pipeline, model, items)
    assert (fold.count, fold.weight) == (len(items), 4 * sum(weight for *_, weight in items[:PHONES]))


def test_updates_of_one_batch_fail_alone(layout: Layout) -> None:
    pipeline = Pipeline.parse("rotate | eden(1)")
    items = updates(pipeline, layout)
    alone = folded(pipeline, layout, [items[0], items[3], items[5]])
    wrong = [Update(*item) for item in items]
    wrong[1] = wrong[1]._replace(payload=wrong[1].payload + b"\0")
    nan = b"\0\0\xc0\x7f"
    wrong[2] = wrong[2]._replace(payload=nan + wrong[2].payload[4:])
    wrong[4] = wrong[4]._replace(weight=1 << 50)
    fold = pipeline.fold(layout, RoundKey(0, 1), updates=PHONES)
    faults = fold.add_all(wrong)
    assert [fault is not None for fault in faults] == [False, True, True, False, True, False]
    assert "NaN" in str(faults[2]) and "exceeds" in str(faults[4])
    assert fold.mean().tobytes() == alone.mean().tobytes()


def test_a_vertex_beyond_its_tensor_fails_alone_in_its_batch() -> None:
    """The last vertex of a tensor of 9,000 values stands for eight of them: places 8 to 31 are none of its own."""
    layout, pipeline = Layout((Tensor("over", (9000,)),)), Pipeline.parse("exact(0) | rotate | vertex(32)")
    items = updates(pipeline, layout)
    payload, key, weight = items[2]
    header, symbols = payload[:8], unpack(payload[8:], 282, 6).copy()
    symbols[-1] = 8
    wrong = (header + pack(symbols, 6), key, weight)
    fold = pipeline.fold(layout, RoundKey(0, 1), updates=PHONES)
    faults = fold.add_all([Update(*item) for item in [*items[:2], wrong, *items[3:]]])
    assert [fault is not None for fault in faults] == [False, False, True, False, False, False]
    assert "place 9000 is beyond the 9000 values" in str(faults[2])
    assert fold.mean().tobytes() == folded(pipeline, layout, [*items[:2], *items[3:]]).mean().tobytes()


@given(st.lists(st.tuples(st.integers(0, 23), st.binary(max_size=3), st.integers(0, 400)), max_size=6))
def test_whatever_is_wrong_in_a_batch_the_others_count(faults: list[tuple[int, bytes, int]]) -> None:
    """Each row is refused, or counted, as it would be alone."""
    layout, pipeline = Layout((Tensor("a", (700,)), Tensor("b", (9,)))), Pipeline.parse("vertex-small")
    batch = [Update(*item) for item in updates(pipeline, layout) * 4]
    for row, spoilt, at in faults:
        payload = batch[row].payload
        batch[row] = batch[row]._replace(payload=payload[:at] + spoilt + payload[at + len(spoilt) :])
    fold = pipeline.fold(layout, RoundKey(0, 1), updates=len(batch))
    found, alone = fold.add_all(batch), pipeline.fold(layout, RoundKey(0, 1), updates=len(batch))
    for update, fault in zip(batch, found, strict=True):
        with contextlib.nullcontext() if fault is None else pytest.raises(CodecError, match=re.escape(str(fault))):
            alone.add(update.payload, update.key, update.weight)
    assert fold.mean().tobytes() == alone.mean().tobytes()


def test_large_values_add_the_bits_that_decoding_gives(layout: Layout) -> None:
    """What may be beyond 2²⁰ is rounded in another way, update by update."""
    pipeline = Pipeline.parse("rotate | eden(1)")
    items = updates(pipeline, layout)
    items = [(payload, key, 100_000 * weight) for payload, key, weight in items]
    fold = folded(pipeline, layout, items)
    assert fold.mean().tobytes() == added_one_by_one(pipeline, layout, items)


def test_sum_of_rotated_coordinates_is_clipped_by_their_norm(layout: Layout) -> None:
    pipeline = Pipeline.parse("shared-4bit")
    payload, key, weight = updates(pipeline, layout)[0]
    clipped = pipeline.fold(layout, RoundKey(0, 1), clip_norm=1.0)
    clipped.add(payload, key, weight)
    assert np.isclose(np.linalg.norm(clipped.mean()), 1, rtol=1e-3)


@pytest.mark.parametrize("spec", ["shared-4bit", "rotate | eden(1)"])
def test_broken_update_leaves_the_sum_alone(spec: str, layout: Layout) -> None:
    pipeline = Pipeline.parse(spec)
    (payload, key, weight), *rest = updates(pipeline, layout)
    fold = folded(pipeline, layout, rest)
    before = fold.to_bytes()
    header = len(payload) - 200
    for wrong in (payload[:-1], payload + b"\0", payload[:1] + b"\xff" * header + payload[1 + header :]):
        with pytest.raises(CodecError):
            fold.add(wrong, key, weight)
    assert fold.to_bytes() == before
