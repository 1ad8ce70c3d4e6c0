"""What a codec spec costs and loses: bits, error, bias, speed and memory, on one core, beside a plain memory copy.

For a vector x, seeds s = 1 … n that give decoded vectors x̂_s:

    vNMSE = mean ‖x − x̂_s‖² / ‖x‖²,    bias = ‖mean x̂_s − x‖ / ‖x‖,    which without any bias is about √(vNMSE / n)

A structured spec trains coordinates c of a subspace, so x is in it: c is the data pulled back, x = expand(c).
"""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.randomness import RoundKey

COHORT = 50
"""Phones in the round over which a fold is amortised."""
PAYLOADS = 5
"""Different updates that these phones send, so that fifty need not be made."""
DATA = ("normal", "lognormal", "update-2nn", "update-cnn")


@dataclass(frozen=True, slots=True)
class Figures:
    """One spec on one kind of data; speeds are megabytes of float32 a second, the best of all repetitions."""

    spec: str
    pipeline: str
    """The stages that the spec stands for."""
    data: str
    coordinates: int
    payload_bytes: int
    bits_per_coordinate: float
    theory_bits: float
    vnmse: float
    bias: float
    bias_if_unbiased: float
    encode_mb_s: float
    decode_mb_s: float
    fold_mb_s: float
    copy_mb_s: float
    encode_peak: float
    """Most memory that an encode takes beside its argument, in vectors of float32."""


def vector(data: str, size: int, data_dir: str | None) -> tuple[Layout, F32]:
    """Return the layout and the values of a kind of data; `size` is for drawn ones. Raises `DataError`."""
    generator = np.random.Generator(np.random.PCG64(0))
    if data == "normal":
        return _matrix(size), generator.standard_normal(size, np.float32)
    if data == "lognormal":
        return _matrix(size), generator.lognormal(size=size).astype(np.float32)
    model = data.removeprefix("update-")
    from featherfed.learning.models import layout_of

    return layout_of(f"mnist/{model}"), _update(model, data_dir)


def _matrix(size: int) -> Layout:
    """Return one tensor of so many values, as near to square as they allow, for stages that work on matrices."""
    rows = next(rows for rows in range(int(size**0.5), 0, -1) if size % rows == 0)
    return Layout((Tensor("x", (rows, size // rows)),))


def _update(model: str, data_dir: str | None) -> F32:
    """Return the update of one phone of a hundred after its first local epoch on MNIST (batch 10, rate 0.1)."""
    from featherfed.learning.models import build, layout
    from featherfed.learning.training import Trainer
    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem
    from featherfed.training_settings import Training

    problem = load_problem(f"mnist/{model}")
    trainer, module = Trainer(problem, problem.examples(Place(of=100, data_dir=data_dir))), build(problem, 0)
    weights = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    key = RoundKey(0, 1, 0)
    update = trainer.train(weights, Training(), key, Pipeline.parse("float32").space(layout(module), key))
    assert update is not None, "nothing stops it"
    return update.coordinates


def measure(spec: str, data: str, layout: Layout, values: F32, seeds: int) -> Figures:
    """Return the figures of a spec on (layout.size,) values, from so many seeds."""
    pipeline = Pipeline.parse(spec)
    megabytes = 4 * layout.size / 1e6
    error, squared, norm, encode_s, decode_s, size = np.zeros(layout.size), 0.0, 0.0, np.inf, np.inf, 0
    for seed in range(seeds):
        key = RoundKey(seed, 1, seed)
        coordinates, target = _trained(pipeline, layout, key, values)
        encoded, took_s = _timed(partial(pipeline.encode, coordinates, layout, key))
        encode_s = min(encode_s, took_s)
        decoded, took_s = _timed(partial(pipeline.decode, encoded.payload, layout, key))
        decode_s = min(decode_s, took_s)
        size = max(size, len(encoded.payload))
        difference = decoded - target
        error += difference
        length = float(np.square(target, dtype=np.float64).sum())
        norm += length / seeds
        squared += float(np.square(difference, dtype=np.float64).sum()) / length / seeds
    coordinates = _trained(pipeline, layout, RoundKey(0, 1, 0), values)[0]
    return Figures(
        spec=spec,
        pipeline=str(pipeline),
        data=data,
        coordinates=layout.size,
        payload_bytes=size,
        bits_per_coordinate=8 * size / layout.size,
        theory_bits=8 * pipeline.theory_bytes(layout) / layout.size,
        vnmse=squared,
        bias=float(np.linalg.norm(error / seeds)) / norm**0.5,
        bias_if_unbiased=(squared / seeds) ** 0.5,
        encode_mb_s=megabytes / encode_s,
        decode_mb_s=megabytes / decode_s,
        fold_mb_s=megabytes / _fold_s(pipeline, layout, values),
        copy_mb_s=megabytes / _copy_s(values),
        encode_peak=_peak_bytes(lambda: pipeline.encode(coordinates, layout, RoundKey(0, 1, 0))) / (4 * layout.size),
    )


def _trained(pipeline: Pipeline, layout: Layout, key: RoundKey, values: F32) -> tuple[F32, F32]:
    """Return the coordinates that a phone would train, and what they are as weights."""
    space = pipeline.space(layout, key)
    coordinates = space.pull_back(values)
    return coordinates, space.expand(coordinates)


def _fold_s(pipeline: Pipeline, layout: Layout, values: F32) -> float:
    """Return the seconds that the server spends on one of a round's updates, its share of the mean included."""
    keys = [RoundKey(0, 1, client) for client in range(PAYLOADS)]
    payloads = [pipeline.encode(_trained(pipeline, layout, key, values)[0], layout, key).payload for key in keys]
    fold = pipeline.fold(layout, RoundKey(0, 1), updates=COHORT)
    adding_s = min(
        _timed(partial(fold.add, payloads[client % PAYLOADS], keys[client % PAYLOADS], 1))[1]
        for client in range(COHORT)
    )
    return adding_s + min(_timed(fold.mean)[1] for _ in range(3)) / COHORT


def _copy_s(values: F32) -> float:
    target = np.empty_like(values)
    return min(_timed(lambda: np.copyto(target, values))[1] for _ in range(20))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began_s = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began_s


def _peak_bytes(work: Callable[[], Any]) -> int:
    """Return the most memory that was allocated at a time; numpy reports its own to tracemalloc."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
