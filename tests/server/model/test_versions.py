"""What phones decode is what the server believes that they hold, whichever way they took."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.randomness import RoundKey
from featherfed.server.model.versions import Parcel, Versions

LAYOUT = Layout((Tensor("a.weight", (30, 20)), Tensor("a.bias", (30,))))
SEED = 7


def walk(spec: str, steps: int) -> tuple[Versions, list[np.ndarray]]:
    """Return versions after `steps` small steps of a model, and the view of each version."""
    generator = np.random.default_rng(0)
    versions = Versions(LAYOUT, Pipeline.parse(spec, direction="downlink"), SEED)
    weights, views = generator.standard_normal(LAYOUT.size).astype(np.float32), []
    for _ in range(steps):
        versions.publish(weights)
        views.append(versions.view.copy())
        weights = weights + generator.normal(0, 0.01, LAYOUT.size).astype(np.float32)
    return versions, views


def unpacked(parcel: Parcel, held: np.ndarray) -> np.ndarray:
    """Return the model that a phone makes of a parcel."""
    pipeline, start = Pipeline.parse(parcel.spec, direction="downlink"), 0
    weights = held if parcel.base >= 0 else np.zeros(LAYOUT.size, np.float32)
    for step, length in enumerate(parcel.lengths):
        key = RoundKey(SEED, parcel.base + 1 + step)
        weights = weights + pipeline.decode(parcel.payload[start : start + length], LAYOUT, key)
        start += length
    return weights


@pytest.mark.parametrize("spec", ["float32", "float16", "rotate | eden(4)", "rotate | eden(1)"])
@settings(max_examples=15)
@given(held=st.integers(-1, 9), steps=st.integers(1, 9))
def test_every_phone_ends_with_the_bits_of_the_server_s_view(spec: str, held: int, steps: int) -> None:
    versions, views = walk(spec, steps)
    parcel = versions.parcel(held)
    assert parcel.version == steps - 1
    assert sum(parcel.lengths) == len(parcel.payload)
    phone = unpacked(parcel, views[held] if 0 <= held < steps else np.zeros(LAYOUT.size, np.float32))
    assert phone.tobytes() == versions.view.tobytes()


def test_phone_that_is_one_behind_gets_one_difference() -> None:
    versions, _ = walk("rotate | eden(4)", 6)
    parcel = versions.parcel(4)
    assert (parcel.base, parcel.spec, len(parcel.lengths)) == (4, "rotate | eden(4)", 1)
    assert len(parcel.payload) < 4 * LAYOUT.size / 5


def test_parcel_is_never_larger_than_the_model_itself() -> None:
    versions, _ = walk("rotate | eden(4)", 40)
    for held in range(-1, 40):
        assert len(versions.parcel(held).payload) <= 4 * LAYOUT.size


def test_phone_that_is_far_behind_gets_the_whole_model() -> None:
    versions, _ = walk("float16", 12)
    parcel = versions.parcel(0)
    assert (parcel.base, parcel.spec, parcel.theory) == (-1, "float32", 4 * LAYOUT.size)


def test_chain_does_not_grow_with_the_run() -> None:
    short, long = walk("rotate | eden(4)", 15)[0], walk("rotate | eden(4)", 60)[0]
    assert len(long.chain) == len(short.chain)
    assert sum(map(len, long.chain.values())) <= 4 * LAYOUT.size


def test_phone_of_the_future_is_taken_for_one_that_holds_nothing() -> None:
    versions, _ = walk("float32", 2)
    assert versions.parcel(17) == versions.parcel(-1)


# Some lose more than the difference itself (vNMSE above 1), some are biased.
LOSSY = (
    "rotate | eden(1)", "rotate | eden(4)", "konecny-256x", "eden-tiny", "vertex-tiny", "quantize(1)", "shared-2bit",
    "topk(1/20)", "topk(1/20) | ternary", "topk(1/20) | ternary | entropy", "sign", "qsgd(2) | entropy",
    "subsample(1/16)", "bfloat16",
)  # fmt: skip


@pytest.mark.parametrize("spec", LOSSY)
def test_repeated_lossy_downlinks_converge(spec: str) -> None:
    versions = Versions(LAYOUT, Pipeline.parse(spec, direction="downlink"), SEED)
    weights = np.random.default_rng(0).standard_normal(LAYOUT.size).astype(np.float32)
    errors = []
    for _ in range(400):
        versions.publish(weights)
        errors.append(float(np.linalg.norm(versions.view - weights) / np.linalg.norm(weights)))
    assert max(errors) <= 1
    assert errors[-1] < 0.02


def test_restored_versions_give_the_same_parcels() -> None:
    versions, _ = walk("rotate | eden(4)", 5)
    again = Versions(LAYOUT, Pipeline.parse("rotate | eden(4)", direction="downlink"), SEED)
    again.restore(versions.version, versions.view, versions.chain)
    for held in range(-1, 5):
        assert again.parcel(held) == versions.parcel(held)
