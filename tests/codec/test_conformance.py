"""What every stage and every preset promises."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey
from featherfed.testing import CHECKS

from .same_bits import values
from .specs import ALL_SPECS

KEY = RoundKey(7, 3, 5)
GOLDEN = Path(__file__).parent / "golden.json"


def golden_payload(spec: str, layout: Layout) -> bytes:
    """Return the payload of about normal numbers that come from whole ones, which no C library touches."""
    pipeline = Pipeline.parse(spec)
    return pipeline.encode(values(pipeline.space(layout, KEY).size, "golden"), layout, KEY).payload


every_spec = pytest.mark.parametrize("spec", ALL_SPECS)


def coordinates(pipeline: Pipeline, layout: Layout, key: RoundKey = KEY, seed: int = 0) -> np.ndarray:
    size = pipeline.space(layout, key).size
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@every_spec
@pytest.mark.parametrize("check", CHECKS)
def test_every_stage_keeps_its_promises(spec: str, check: Callable[[str], None]) -> None:
    check(spec)


DRAWS = ("rotate", "sub", "quantize", "mask", "lowrank", "qsgd")
RANDOM = [spec for spec in ALL_SPECS if any(word in spec for word in DRAWS)]


@pytest.mark.parametrize("spec", RANDOM)
def test_another_seed_round_or_phone_gives_other_bytes(spec: str, layout: Layout) -> None:
    pipeline = Pipeline.parse(spec)
    values = coordinates(pipeline, layout)

    def trace(key: RoundKey) -> bytes:
        # Where the randomness is in what is trained, the bytes are the same and mean something else.
        payload = pipeline.encode(values, layout, key).payload
        return payload + pipeline.decode(payload, layout, key).tobytes()

    traces = [trace(RoundKey(*key)) for key in ((7, 3, 5), (8, 3, 5), (7, 4, 5), (7, 3, 6))]
    # A rotation that all phones of a round share is the one randomness that no phone has for itself.
    assert len(set(traces)) == (3 if spec == "rotate_shared | float32" else 4)


@every_spec
def test_size_is_what_the_formulas_say(spec: str, layout: Layout) -> None:
    pipeline = Pipeline.parse(spec)
    size = len(pipeline.encode(coordinates(pipeline, layout), layout, KEY).payload)
    assert size <= pipeline.max_bytes(layout)
    if "entropy" not in spec:
        # Packed bits end on whole bytes: two parts a tensor, and a Golomb code a little above its entropy.
        tensors = len(layout.tensors)
        assert pipeline.theory_bytes(layout) - 2 * tensors <= size <= 1.1 * pipeline.theory_bytes(layout) + 3 * tensors


@every_spec
@settings(max_examples=15, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 23), min_size=1, max_size=3), max_size=4),
    scale=st.sampled_from([1e-45, 1e-38, 1e-20, 1.0, 1e20, 1e30]),
    seed=st.integers(0, 99),
)
def test_any_shape_and_scale_round_trips(spec: str, shapes: list[list[int]], scale: float, seed: int) -> None:
    pipeline = Pipeline.parse(spec)
    layout = Layout(tuple(Tensor(str(number), tuple(shape)) for number, shape in enumerate(shapes)))
    values = coordinates(pipeline, layout, seed=seed) * np.float32(scale)
    payload = pipeline.encode(values, layout, KEY).payload
    assert len(payload) <= pipeline.max_bytes(layout)
    decoded = pipeline.decode(payload, layout, KEY)
    assert decoded.shape == (layout.size,)
    assert np.isfinite(decoded).all()


@every_spec
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_decode_to_the_shape_or_are_refused(spec: str, layout: Layout, data: st.DataObject) -> None:
    pipeline = Pipeline.parse(spec)
    good = pipeline.encode(coordinates(pipeline, layout), layout, KEY).payload
    payload = bytearray(data.draw(st.one_of(st.binary(max_size=80), st.just(good))))
    for _ in range(data.draw(st.integers(0, 4))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))] if data.draw(st.booleans()) else payload
    try:
        decoded = pipeline.decode(bytes(payload), layout, KEY)
    except CodecError as error:
        assert str(error)
    else:
        assert decoded.shape == (layout.size,)
        assert np.isfinite(decoded).all()


@every_spec
def test_golden_bytes(spec: str, layout: Layout) -> None:
    """A change of these bytes is a change of the protocol: write a new version number first."""
    payload = golden_payload(spec, layout)
    golden = json.loads(GOLDEN.read_text())
    assert spec in golden, "run `python -m tests.codec.golden` once for a new stage, and look at the difference"
    assert [len(payload), hashlib.sha256(payload).hexdigest()] == golden[spec]
