"""The figures that the stages are chosen for."""

import numpy as np
import pytest

from featherfed.codec.entropy import Entropy
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.quantize import Quantize
from featherfed.randomness import RoundKey
from tests.layouts import LAYOUTS

VECTOR = Layout((Tensor("x", (1 << 18,)),))


def normal(size: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(size).astype(np.float32)


def vnmse(spec: str) -> float:
    x, pipeline, key = normal(VECTOR.size), Pipeline.parse(spec), RoundKey(0, 1, 2)
    decoded = pipeline.decode(pipeline.encode(x, VECTOR, key).payload, VECTOR, key)
    return float(((x - decoded) ** 2).sum() / (x**2).sum())


@pytest.mark.parametrize(("bits", "most"), [(1, 0.575), (2, 0.135), (4, 0.0098)])
def test_eden_has_the_error_of_its_paper(bits: int, most: float) -> None:
    assert vnmse(f"rotate | eden({bits})") <= most


def test_min_max_at_one_bit_is_far_worse_than_eden() -> None:
    assert vnmse("rotate | quantize(1)") > 15


@pytest.mark.parametrize(("model", "most"), [("2nn", 25_400), ("cnn", 209_500)])
def test_one_bit_update_has_the_promised_size(model: str, most: int) -> None:
    layout, pipeline = LAYOUTS[model], Pipeline.parse("rotate | eden(1)")
    assert len(pipeline.encode(normal(layout.size), layout, RoundKey(0, 1, 2)).payload) <= most


@pytest.mark.parametrize("spec", ["rotate | eden(1)", "quantize(3)", "subsample(1/4) | rotate | eden(2)", "qsgd(5)"])
@pytest.mark.parametrize("size", [10_000, 99_991, 156_800])
def test_payload_is_within_one_percent_of_its_bits(spec: str, size: int) -> None:
    layout, pipeline = Layout((Tensor("x", (size,)),)), Pipeline.parse(spec)
    payload = pipeline.encode(normal(size), layout, RoundKey(0, 1, 2)).payload
    kept = round(size / 4) if "subsample" in spec else size
    bits = int(spec.split("(")[-1].split(")")[0])
    assert len(payload) <= 1.01 * kept * bits / 8 + 16


def test_stc_is_within_its_bits() -> None:
    payload = Pipeline.parse("stc-400").encode(normal(VECTOR.size), VECTOR, RoundKey(0, 1, 2)).payload
    assert 8 * len(payload) / VECTOR.size <= 0.029


@pytest.mark.parametrize("coder", ["", " | entropy"])
@pytest.mark.parametrize("fraction", ["1/10", "1/33", "1/100", "1/400", "1/1000"])
def test_positions_are_within_two_percent_of_their_entropy(fraction: str, coder: str) -> None:
    pipeline = Pipeline.parse(f"topk({fraction}) | ternary{coder}")
    size = len(pipeline.encode(normal(VECTOR.size), VECTOR, RoundKey(0, 1, 2)).payload)
    assert size <= 1.02 * pipeline.theory_bytes(VECTOR)


def test_entropy_codes_symbols_at_their_entropy() -> None:
    """Within 1 % and the histogram of a lower bound for any lossless code of independent symbols."""
    quantizer = Quantize(3)
    header, symbols = quantizer.encode(normal(VECTOR.size), np.random.default_rng(0))
    shares = np.bincount(symbols, minlength=8) / len(symbols)
    entropy_bits = -float((shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    assert len(Entropy().encode(symbols, quantizer)) <= 1.01 * VECTOR.size * entropy_bits / 8 + 16
    assert len(header) == 8


def test_entropy_takes_what_min_max_wastes() -> None:
    layout = LAYOUTS["cnn"]
    sizes = [
        len(Pipeline.parse(spec).encode(normal(layout.size), layout, RoundKey(0, 1, 2)).payload)
        for spec in ("subsample(1/16) | rotate | quantize(2)", "subsample(1/16) | rotate | quantize(2) | entropy")
    ]
    assert sizes[1] <= 0.6 * sizes[0]


def test_entropy_never_costs_more_than_a_byte_a_tensor() -> None:
    for layout in (LAYOUTS["lite"], VECTOR):
        noise = np.random.default_rng(0).random(layout.size).astype(np.float32)
        sizes = [
            len(Pipeline.parse(spec).encode(noise, layout, RoundKey(0, 1, 2)).payload)
            for spec in ("quantize(8)", "quantize(8) | entropy")
        ]
        assert sizes[1] <= sizes[0] + len(layout.tensors)


def test_fold_sums_shared_rotations_before_one_inverse() -> None:
    pipeline = Pipeline.parse("shared-4bit")
    assert pipeline.sums_rotated
    layout, fold, slow = LAYOUTS["lite"], pipeline.fold(LAYOUTS["lite"], RoundKey(0, 1)), []
    for client in range(5):
        key = RoundKey(0, 1, client)
        payload = pipeline.encode(normal(layout.size) * (client + 1), layout, key).payload
        fold.add(payload, key, 10)
        slow.append(pipeline.decode(payload, layout, key))
    expected = np.mean(slow, axis=0)
    # A rotation rounds to 15 bits of a block's largest value.
    assert np.linalg.norm(fold.mean() - expected) < 2e-4 * np.linalg.norm(expected)


def test_feedback_sends_later_what_it_left_out() -> None:
    layout, pipeline = LAYOUTS["lite"], Pipeline.parse("feedback | topk(1/20) | ternary")
    x, state, received = normal(layout.size), None, np.zeros(layout.size)
    for round_number in range(200):
        key = RoundKey(0, round_number, 0)
        encoded = pipeline.encode(x, layout, key, state)
        state = encoded.state
        received += pipeline.decode(encoded.payload, layout, key)
    assert np.linalg.norm(received / 200 - x) < 0.2 * np.linalg.norm(x)


def test_residual_goes_with_the_next_update_where_feedback_ends() -> None:
    layout, x = LAYOUTS["lite"], normal(LAYOUTS["lite"].size)
    sparse, whole = Pipeline.parse("feedback | topk(1/20)"), Pipeline.parse("float32")
    key, later, last = (RoundKey(0, number, 0) for number in (1, 2, 3))
    first = sparse.encode(x, layout, key)
    assert first.state is not None
    second = whole.encode(x, layout, later, first.state)
    received = sparse.decode(first.payload, layout, key) + whole.decode(second.payload, layout, later)
    assert np.allclose(received, 2 * x, atol=1e-6)
    assert second.state is not None and not second.state.any()
    third = whole.encode(x, layout, last, second.state)
    assert third.state is None and np.array_equal(whole.decode(third.payload, layout, last), x)


def test_residual_stays_under_another_pipeline_with_feedback_and_waits_under_a_structured_one() -> None:
    layout, x = LAYOUTS["lite"], normal(LAYOUTS["lite"].size)
    sparse, signs, mask = (Pipeline.parse(spec) for spec in ("feedback | topk(1/20)", "feedback | sign", "mask(1/4)"))
    state = sparse.encode(x, layout, RoundKey(0, 1, 0)).state
    key = RoundKey(0, 2, 0)
    assert state is not None
    other = signs.encode(x, layout, key, state)
    assert other.state is not None
    assert np.allclose(other.state, x + state - signs.decode(other.payload, layout, key), atol=1e-6)
    coordinates = normal(mask.space(layout, key).size)
    masked = mask.encode(coordinates, layout, key, state)
    assert masked.state is None
    assert masked.payload == mask.encode(coordinates, layout, key).payload


@pytest.mark.parametrize("spec", ["mask(1/4)", "lowrank(1/4)", "subspace(500)"])
def test_pull_back_is_the_transpose_of_expand(spec: str) -> None:
    layout = LAYOUTS["lite"]
    space = Pipeline.parse(spec).space(layout, RoundKey(0, 1, 2))
    c, g = normal(space.size), normal(layout.size)[::-1].copy()
    assert np.isclose(float(space.expand(c) @ g), float(c @ space.pull_back(g)), rtol=1e-3)


def test_lowrank_update_has_the_rank_that_it_says() -> None:
    layout = LAYOUTS["2nn"]
    space = Pipeline.parse("lowrank(1/8)").space(layout, RoundKey(0, 1, 2))
    update = space.expand(normal(space.size))
    second = next(place for tensor, place in layout.slices() if tensor.shape == (200, 200))
    assert np.linalg.matrix_rank(update[second].reshape(200, 200)) == 25
