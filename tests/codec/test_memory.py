"""Memory: encoding stays within a few vectors, and no payload makes a decoder allocate more than its size."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from featherfed.codec import lattice
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

from .specs import ALL_SPECS

LAYOUT = Layout((Tensor("x", (1024, 1024)),))
KEY = RoundKey(0, 1, 2)


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def coordinates(pipeline: Pipeline) -> np.ndarray:
    size = pipeline.space(LAYOUT, KEY).size
    return np.random.default_rng(0).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_encode_takes_at_most_four_vectors(spec: str) -> None:
    pipeline = Pipeline.parse(spec)
    values = coordinates(pipeline)
    pipeline.encode(values, LAYOUT, KEY)  # what is drawn once a process is no part of it
    assert values.nbytes + peak_bytes(lambda: pipeline.encode(values, LAYOUT, KEY)) <= 4 * 4 * LAYOUT.size


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_no_payload_makes_a_decoder_take_more_than_its_tensors_do(spec: str) -> None:
    pipeline = Pipeline.parse(spec)
    good = pipeline.encode(coordinates(pipeline), LAYOUT, KEY).payload
    generator = np.random.default_rng(1)
    worst = peak_bytes(lambda: pipeline.decode(good, LAYOUT, KEY))

    def decode(payload: bytes) -> None:
        try:
            pipeline.decode(payload, LAYOUT, KEY)
        except CodecError as error:
            assert str(error)

    for first in range(12):
        payload = bytearray(good)
        for place in generator.integers(0, min(len(good), 64), 4):
            payload[place] = generator.integers(0, 256)
        # The front is where lengths, widths and ways stand.
        payload[: first + 1] = b"\xff" * (first + 1)
        worst = max(worst, peak_bytes(lambda payload=payload: decode(bytes(payload))))
    assert worst <= 8 * 4 * LAYOUT.size


@pytest.mark.parametrize("scale", [0.1, 1, 5])
def test_difference_on_the_lattice_takes_at_most_four_vectors(scale: float) -> None:
    numbers = np.rint(np.random.default_rng(0).laplace(0, scale, LAYOUT.size)).astype(np.int16)
    difference = lattice.encode(numbers, (-5,), LAYOUT)
    assert peak_bytes(lambda: lattice.encode(numbers, (-5,), LAYOUT)) <= 4 * 4 * LAYOUT.size
    assert peak_bytes(lambda: lattice.decode(difference, LAYOUT)) <= 4 * 4 * LAYOUT.size


def test_no_difference_on_the_lattice_makes_a_phone_take_more_than_a_few_vectors() -> None:
    good = lattice.encode(np.ones(LAYOUT.size, np.int16), (-5,), LAYOUT)
    generator = np.random.default_rng(1)

    def decode(difference: bytes) -> None:
        try:
            lattice.decode(difference, LAYOUT)
        except CodecError as error:
            assert str(error)

    # Larger values alone, and any front.
    hostile = [good[:2] + b"\x80\x00\x87" + bytes(40), good[:2] + b"\xbf" + b"\x87" * 65 + generator.bytes(3000)]
    hostile += [good[:2] + generator.bytes(100) for _ in range(8)]
    for difference in hostile:
        assert peak_bytes(lambda difference=difference: decode(difference)) <= 12 * 4 * LAYOUT.size
