"""What a cohort's mean loses where phones are summed before decoding, beside codecs whose updates the server sees.

Updates x_i = √ρ·c + √(1 − ρ)·o_i, with c common to all phones of a round and o_i each one's own, both normal: the error
is ‖m̂ − m‖²/‖m‖² of their mean m. The first round's steps know the clip norm alone, later ones the sums before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.codec.summable import Summable
from featherfed.codec.summed import Summed
from featherfed.randomness import RoundKey

SIZE = 29_322
"""Weights, as many as `lite` has."""
COMMON = (0.5, 0.1)
ROUNDS = 3
CLIP = 1.5
"""The clip norm, in norms of an update."""
FLAT = "exact(0) | flat | rotate_shared | grid({})"
ROWS: tuple[tuple[str, int, int], ...] = (
    ("secure-4bit", 10, 1), ("secure-small", 10, 1),
    ("exact(0) | flat | subsample(1/4) | rotate_shared | grid(4)", 10, 1),
    (FLAT.format(6), 100, 1), (FLAT.format(5), 100, 5), (FLAT.format(5), 100, 10), ("secure-4bit", 100, 10),
    ("secure-small", 100, 10),
    (FLAT.format(8), 1000, 1), (FLAT.format(5), 1000, 50), ("secure-4bit", 1000, 100),
    *((spec, cohort, 0) for cohort in (10, 100, 1000) for spec in ("vertex-small", "eden-half", "eden-1bit")),
)  # fmt: skip
"""Specs, cohorts, and how many circles these are, each with a slice of its own: 0 where the server sees updates."""


@dataclass(frozen=True, slots=True)
class SumFigures:
    """One spec for one cohort; `circles` is 0 where updates are decoded one by one. Errors are by COMMON's shares."""

    spec: str
    cohort: int
    circles: int
    bits_per_weight: float
    first: float
    later: tuple[float, ...]


def measured_sums() -> Iterator[SumFigures]:
    """Yield the figures of all rows."""
    for spec, cohort, circles in ROWS:
        yield measure_sum(spec, cohort, circles)


def measure_sum(spec: str, cohort: int, circles: int, size: int = SIZE) -> SumFigures:
    """Return the figures of a spec for a cohort in so many circles."""
    pipeline, layout = Pipeline.parse(spec), Layout((Tensor("x", (size,)),))
    errors = []
    for common in COMMON:
        means = (
            _summed(pipeline, layout, cohort, circles, common) if circles else _folded(pipeline, layout, cohort, common)
        )
        errors.append([_error(*both) for both in means])
    if circles:
        adder = Summable(pipeline, layout, clip=1.0)
        payload = adder.payload_bytes(adder.count(0, circles))
    else:
        payload = pipeline.max_bytes(layout)
    return SumFigures(spec, cohort, circles, 8 * payload / size, errors[0][0], tuple(rows[-1] for rows in errors))


def _error(mean: F32, wanted: npt.NDArray[np.float64]) -> float:
    return float(np.square(mean - wanted).sum() / np.square(wanted).sum())


def _updates(size: int, cohort: int, common: float, round_number: int) -> Iterator[F32]:
    """Yield the update of each phone, its coordinates."""
    generator = np.random.Generator(np.random.PCG64(round_number))
    shared = math.sqrt(common) * generator.standard_normal(size)
    for _ in range(cohort):
        yield (shared + math.sqrt(1 - common) * generator.standard_normal(size)).astype(np.float32)


Means = Iterator[tuple[F32, npt.NDArray[np.float64]]]
"""A decoded mean of each round, and what it should be."""


def _summed(pipeline: Pipeline, layout: Layout, cohort: int, circles: int, common: float) -> Means:
    size = pipeline.space(layout, RoundKey(0, 0)).size
    adder, state = Summable(pipeline, layout, clip=CLIP * math.sqrt(size)), None
    members = -(-cohort // circles)
    for round_number in range(1, ROUNDS + 1):
        steps = adder.steps(state, members=members)
        summed = Summed(adder, RoundKey(0, round_number), steps=steps, members=members, slices=circles)
        sums = [np.zeros(adder.count(slice_, circles), np.int64) for slice_ in range(circles)]
        total = np.zeros(size)
        for client, update in enumerate(_updates(size, cohort, common, round_number)):
            slice_ = client % circles
            key = RoundKey(0, round_number, client)
            sums[slice_] += adder.encode(update, key, steps=steps, slice_=slice_, slices=circles).residues
            total += update
        for slice_, residues in enumerate(sums):
            summed.add_circle(residues, range(slice_, cohort, circles), slice_)
        space = pipeline.space(layout, RoundKey(0, round_number))
        state = summed.next_state(state)
        yield summed.mean(), space.expand((total / cohort).astype(np.float32)).astype(np.float64)


def _folded(pipeline: Pipeline, layout: Layout, cohort: int, common: float) -> Means:
    fold, total = pipeline.fold(layout, RoundKey(0, 1), updates=cohort), np.zeros(layout.size)
    for client, update in enumerate(_updates(layout.size, cohort, common, 1)):
        key = RoundKey(0, 1, client)
        fold.add(pipeline.encode(update, layout, key).payload, key, 1)
        total += update
    yield fold.mean(), total / cohort
