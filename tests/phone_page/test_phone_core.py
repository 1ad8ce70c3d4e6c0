"""The phone of the page, under Node: on the vectors of the pages, and against what Python and torch write."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.learning.chain import described
from featherfed.learning.flat import FlatModel
from featherfed.learning.models import build as build_model
from featherfed.learning.models import layout
from featherfed.learning.training import Trainer
from featherfed.problem import Examples, Place
from featherfed.problem_loading import load_problem
from featherfed.problems import digits
from featherfed.randomness import RoundKey
from featherfed.training_settings import Training

from .node import build, run_tests

QUANTIZERS = ("float32", "float16", "bfloat16", "quantize(2)", "eden(1)", "eden(3)", "vertex(32)", "stochastic(2)")
ROTATIONS = ("", "rotate | ", "rotate_shared | ")
SPARSE = ("", "subsample(3/7) | ")
WHOLE = ("", "exact(0) | flat | ", "exact(0) | mask(2/5) | ")
SPECS = [
    f"{whole}{sparse}{rotation}{quantizer}"
    for whole in WHOLE
    for sparse in SPARSE
    for rotation in ROTATIONS
    for quantizer in QUANTIZERS
    # The grammar refuses the others: levels are those of rotated values, and some need a rotation of each phone's own.
    if rotation in {"e": ("rotate | ",), "v": ("rotate | ",), "s": ROTATIONS[1:]}.get(quantizer[0], ROTATIONS)
]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    build(folder)
    return folder


def tensors(of: Layout) -> list[dict[str, Any]]:
    return [{"name": each.name, "shape": each.shape} for each in of.tensors]


def hexed(values: np.ndarray) -> str:
    return values.astype("<f4").tobytes().hex()


def payload(spec: str, of: Layout, key: RoundKey, scale: float) -> dict[str, Any]:
    """Return a payload that Python makes of a drawn update, and what Python decodes."""
    pipeline = Pipeline.parse(spec)
    drawn = np.random.Generator(np.random.PCG64(9)).normal(size=pipeline.space(of, key).size)
    update = (scale * drawn).astype(np.float32)
    if len(update) > 100:
        update[7:20] = 0
    made = pipeline.encode(update, of, key).payload
    return {
        "spec": spec, "tensors": tensors(of), "seed": str(key.seed), "round": key.round_number, "client": key.client,
        "input": hexed(update), "payload": made.hex(), "decoded": hexed(pipeline.decode(made, of, key)),
    }  # fmt: skip


def learned(name: str, uplink: str, count: int, **settings: Any) -> dict[str, Any]:
    """Return what torch makes of drawn images, step by step as a phone of ours does."""
    problem = load_problem(name)
    module = build_model(problem, 3)
    of, key = layout(module), RoundKey(2**63 + 5, 4, 6)
    draws = np.random.Generator(np.random.PCG64(5))
    images = draws.normal(size=(count, 1, 28, 28)).astype(np.float32)
    targets = draws.integers(0, 10, count)
    weights = FlatModel(module, "cpu").weights.numpy().copy()
    examples = Examples(torch.from_numpy(images), torch.from_numpy(targets))
    training = Training(**settings)
    space = Pipeline.parse(uplink).space(of, key)
    update = Trainer(problem, examples).train(weights, training.in_round(key.round_number), key, space)
    assert update is not None
    order = key.generator("shuffle")
    return {
        "description": described(problem, module), "tensors": tensors(of), "weights": hexed(weights),
        "inputs": hexed(images), "targets": targets.tolist(), "uplink": uplink,
        "orders": [order.permutation(count).tolist() for _ in range(training.epochs)],
        "training": training.to_wire(), "seed": str(key.seed), "round": key.round_number, "client": key.client,
        "update": hexed(update.coordinates),
    }  # fmt: skip


def test_bundled_digits_are_enlarged_as_ours_are(bundles: Path, tmp_path: Path) -> None:
    place = Place(1, 40, 3)
    own = load_problem("digits/tiny").examples(place)
    made = {"shard": digits.small(place).hex(), "inputs": hexed(own.inputs.numpy()), "targets": own.targets.tolist()}
    (tmp_path / "digits.json").write_text(json.dumps([made]))
    said = run_tests(bundles / "from_python.test.mjs", FEATHERFED_FIXTURES=str(tmp_path))
    assert int(re.search(r"# pass (\d+)", said)[1]) == 1  # type: ignore[index]


def test_vectors_and_examples_of_the_pages(bundles: Path) -> None:
    """Everything that needs no Python: docs/vectors.json, the exchange of PROTOCOL.md, a life on a played server."""
    for name in sorted(bundles.glob("*.test.mjs")):
        run_tests(name)


def test_payloads_are_the_same_on_both_ends(bundles: Path, tmp_path: Path) -> None:
    small = layout(build_model(load_problem("digits/tiny"), 0))
    made = [payload(spec, small, RoundKey(2**64 - 1, 12, 34), 0.01) for spec in SPECS]
    # More than one block of 8192 values, where the last one overlaps; and values that are no normal floats.
    large = layout(build_model(load_problem("digits/lite"), 0))
    for spec in ("exact(0) | flat | rotate | eden(1)", "rotate | vertex(128)", "rotate_shared | stochastic(4)"):
        made += [payload(spec, large, RoundKey(3, 2, 1), scale) for scale in (1.0, 1e-30, 1e-41, 0.0)]
    (tmp_path / "payloads.json").write_text(json.dumps(made))
    said = run_tests(bundles / "from_python.test.mjs", FEATHERFED_FIXTURES=str(tmp_path))
    assert int(re.search(r"# pass (\d+)", said)[1]) == len(made)  # type: ignore[index]


def test_training_is_that_of_torch(bundles: Path, tmp_path: Path) -> None:
    made = [
        learned("digits/tiny", "float32", 34, epochs=2, batch_size=10, lr=0.05, lr_decay=0.9),
        learned("digits/lite", "float32", 25, epochs=1, batch_size=10, lr=0.1, momentum=0.9, weight_decay=0.01),
        learned("digits/2nn", "float32", 20, epochs=2, batch_size=0, lr=0.1, prox_mu=0.5),
        learned("digits/mlp", "mask(1/8)", 20, epochs=2, batch_size=7, lr=0.2, momentum=0.5, prox_mu=0.1),
        learned("digits/cnn", "float32", 4, epochs=1, batch_size=2, lr=0.05),
    ]
    (tmp_path / "learned.json").write_text(json.dumps(made))
    said = run_tests(bundles / "from_python.test.mjs", FEATHERFED_FIXTURES=str(tmp_path))
    assert int(re.search(r"# pass (\d+)", said)[1]) == len(made)  # type: ignore[index]
