"""A round's sum does not depend on the order of its updates, nor on how they were divided, for any codec."""

import numpy as np
import pytest

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Fold, Pipeline
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
    assert np.allclose(folded(pipeline, layout, items).mean(), expected, atol=1e-5)


def test_symbols_are_added_as_they_are_only_where_nothing_must_be_clipped(layout: Layout) -> None:
    pipeline = Pipeline.parse("shared-4bit")
    assert pipeline.sums_symbols
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
