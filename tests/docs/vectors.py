"""Write docs/vectors.json anew: `python -m tests.docs.vectors`. A test never creates what it checks."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featherfed.codec import lattice
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.summable import Summable
from featherfed.codec.summed import Summed
from featherfed.initial_weights import Draw, InitialWeights, digest_of, drawn
from featherfed.randomness import RoundKey, derive

PAGE = Path(__file__).parents[2] / "docs" / "vectors.json"
KEYS = [(0, 1, 2, "rotate/0"), (7, 3, -1, "rotate/12"), (2**63 - 1, 1000, 99, "subspace"), (0, 0, 0, "")]
SPECS = [
    "float32", "float16", "bfloat16", "quantize(1)", "quantize(3)", "quantize(8)", "qsgd(2)", "qsgd(5)", "sign",
    "rotate | float32", "rotate_shared | float32", "rotate | quantize(2)", "rotate | qsgd(4)",
    "rotate | eden(1)", "rotate | eden(2)", "rotate | eden(3)", "rotate | eden(4)",
    "rotate | vertex(2)", "rotate | vertex(128)",
    "rotate_shared | stochastic(1)", "rotate_shared | stochastic(2)", "rotate | stochastic(3)",
    "rotate | stochastic(8)",
    "subsample(1/4)", "subsample(1/2) | rotate | eden(1)", "topk(1/10)", "topk(1/10) | ternary", "topk(1)",
    "quantize(2) | entropy", "sign | entropy", "topk(1/10) | ternary | entropy", "rotate | eden(2) | entropy",
    "mask(1/4)", "mask(1/2) | subsample(1/2) | rotate | quantize(2)", "lowrank(1/4)", "lowrank(1/2) | quantize(4)",
    "subspace(20)", "subspace(33) | quantize(4) | entropy", "exact(0) | flat | rotate | vertex(32)",
    "exact(0) | flat | subsample(1/16) | rotate | eden(1)", "exact(71) | rotate | eden(1)",
]  # fmt: skip
SHAPES = ((8, 3, 3), (70,), (5,))
"""What the structured stages take for a matrix of 9 rows and 8 columns, a vector, and one that travels as it is."""
INITIAL: list[tuple[int, list[Draw], list[tuple[int, ...]]]] = [
    (0, [25, 25, (1.0, 1.0), (0.0, 0.0)], [(3, 1, 5), (3,), (4,), (2,)]),
    (2**64 - 1, [7, (-0.3, 1.1)], [(2, 7), (5,)]),
]
"""Seeds, and how each tensor is drawn."""
LONG = [
    ("rotate | eden(1)", 20_000),
    ("rotate | float32", 9000),
    ("rotate | vertex(128)", 8193),
    ("subspace(3000)", 9000),
]
"""Where rotations have blocks of 8192 and one that overlaps."""

SUMS: list[tuple[str, tuple[tuple[int, ...], ...], str, float, list[int]]] = [
    ("exact(0) | flat | rotate_shared | grid(4)", SHAPES, "b1", 9.0, [3]),
    ("subspace(20) | grid(4)", SHAPES, "b0", 9.0, [2]),
    ("exact(0) | flat | subsample(1/2) | rotate_shared | grid(5)", SHAPES, "a9", 9.0, [2, 2]),
    ("exact(0) | mask(1/4) | rotate_shared | grid(12)", SHAPES, "78", 9.0, [2]),
    ("exact(0) | lowrank(1/2) | rotate_shared | grid(2)", SHAPES, "c8", 9.0, [1]),
    ("exact(0) | rotate_shared | grid(9)", SHAPES, "84", 0.75, [1, 2, 1]),
    ("exact(0) | flat | rotate_shared | grid(6)", ((12_300,),), "8058", 300.0, [1, 1]),
]
"""Specs, shapes, steps, the clip norm, and how many phones are in the circle of each slice."""
LATTICES = [
    ((-5, -6, -5), 2.0, 0), ((-3, -3, -18), 30.0, 0), ((-9, -7, -8), 400.0, -300_000), ((1, 1, 1), 0.0, 0),
    ((-2, -2, -2), 0.0, 9),
]  # fmt: skip
"""Exponents of the steps, how large the numbers are, and one that is far away."""


def ramp(size: int) -> np.ndarray:
    """Return ((7919·i) mod 2003 − 1001)/256, which is the input of the long vectors."""
    numbers: np.ndarray = ((7919 * np.arange(size, dtype=np.int64) % 2003 - 1001) / 256).astype(np.float32)
    return numbers


def sparse(size: int) -> np.ndarray:
    """Return a ramp most of whose values are small, as those of updates are."""
    values = ramp(size) * np.float32(0.01)
    values[:: max(size // 11, 1)] *= np.float32(37)
    return values


def key_vector(seed: int, round_number: int, client: int, purpose: str) -> dict[str, Any]:
    """Return a key's digest and what its generator gives first, each kind from its beginning."""
    key = RoundKey(seed, round_number, client)
    return {
        "seed": seed, "round": round_number, "client": client, "purpose": purpose,
        "digest": derive(seed, round_number, client, purpose).to_bytes(16, "little").hex(),
        "outputs": [f"{word:016x}" for word in key.generator(purpose).bit_generator.random_raw(4).tolist()],
        "bytes": key.generator(purpose).bytes(13).hex(),
        "doubles": key.generator(purpose).random(3).astype("<f8").tobytes().hex(),
        "words, an output, a word": _mixed(key.generator(purpose)),
    }  # fmt: skip


def _mixed(generator: np.random.Generator) -> list[str]:
    first = generator.bytes(4)[::-1].hex()
    return [first, generator.random().hex(), generator.bytes(4)[::-1].hex()]


def stage_vector(spec: str) -> dict[str, Any]:
    """Return an input of a spec with its payload and its decoded values."""
    layout = Layout(tuple(Tensor(str(number), shape) for number, shape in enumerate(SHAPES)))
    pipeline, key = Pipeline.parse(spec), RoundKey(5, 3, 1)
    coordinates = sparse(pipeline.space(layout, key).size)
    payload = pipeline.encode(coordinates, layout, key).payload
    decoded = pipeline.decode(payload, layout, key)
    return {
        "spec": spec, "shapes": SHAPES, "seed": 5, "round": 3, "client": 1,
        "input": coordinates.astype("<f4").tobytes().hex(), "payload": payload.hex(),
        "decoded": decoded.astype("<f4").tobytes().hex(),
    }  # fmt: skip


def encoded(spec: str, size: int) -> tuple[bytes, bytes]:
    """Return the payload of a ramp, and the bytes of what it decodes to."""
    layout, pipeline, key = Layout((Tensor("0", (size,)),)), Pipeline.parse(spec), RoundKey(1, 2, 3)
    payload = pipeline.encode(ramp(pipeline.space(layout, key).size), layout, key).payload
    return payload, pipeline.decode(payload, layout, key).astype("<f4").tobytes()


def long_vector(spec: str, size: int) -> dict[str, Any]:
    """Return the payload of a ramp, where it is not too long, and the SHA-256 of what it decodes to."""
    payload, decoded = encoded(spec, size)
    return {
        "spec": spec, "shapes": [[size]], "seed": 1, "round": 2, "client": 3,
        "input": "((7919·i) mod 2003 − 1001)/256",
        "payload": payload.hex() if len(payload) < 4000 else None,
        "payload SHA-256": hashlib.sha256(payload).hexdigest(), "decoded SHA-256": hashlib.sha256(decoded).hexdigest(),
    }  # fmt: skip


def initial_vector(seed: int, draws: Sequence[Draw], shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return draws as Welcome has them, with the weights that come of them."""
    layout = Layout(tuple(Tensor(str(number), shape) for number, shape in enumerate(shapes)))
    weights = drawn(draws, layout, seed)
    told = InitialWeights(tuple(draws), digest_of(weights))
    return {
        "seed": seed, "draws": told.to_wire(), "shapes": shapes,
        "weights": weights.astype("<f4").tobytes().hex(), "digest": told.digest.hex(),
    }  # fmt: skip


def vectors() -> dict[str, Any]:
    """Return all that the file holds."""
    return {
        "keys": [key_vector(*key) for key in KEYS],
        "stages": [stage_vector(spec) for spec in SPECS],
        "initial": [initial_vector(*given) for given in INITIAL],
        "long": [long_vector(spec, size) for spec, size in LONG],
        "lattice": [lattice_vector(*each) for each in LATTICES],
        "sums": [sum_vector(*each) for each in SUMS],
    }


def lattice_vector(exponents: tuple[int, int, int], scale: float, far: int) -> dict[str, Any]:
    """Return weights, a difference of whole numbers of about `scale` with one that is `far`, and what they become."""
    layout = Layout(tuple(Tensor(str(number), shape) for number, shape in enumerate(SHAPES)))
    weights = ramp(layout.size) / np.float32(3)
    numbers = np.rint(sparse(layout.size) * scale).astype(np.int32)
    numbers[7] += far
    difference = lattice.encode(numbers, exponents, layout)
    return {
        "shapes": SHAPES, "exponents": exponents, "numbers": numbers.tolist(),
        "weights": weights.astype("<f4").tobytes().hex(), "difference": difference.hex(),
        "moved": lattice.moved(weights, numbers, exponents, layout).astype("<f4").tobytes().hex(),
    }  # fmt: skip


def phones_input(size: int, client: int) -> np.ndarray:
    """Return what a phone of a sum has to send: its own turn of `sparse`."""
    return np.roll(sparse(size), 3 * client)


def sum_vector(
    spec: str, shapes: Sequence[tuple[int, ...]], steps: str, clip: float, circles: Sequence[int]
) -> dict[str, Any]:  # fmt: skip
    """Return what the phones of circles, one a slice, send of inputs, and the mean; digests where they are long."""
    layout = Layout(tuple(Tensor(str(number), shape) for number, shape in enumerate(shapes)))
    adder, key = Summable(Pipeline.parse(spec), layout, clip=clip), RoundKey(5, 3)
    size = adder.pipeline.space(layout, key).size
    long = layout.size > 1000
    summed = Summed(adder, key, steps=bytes.fromhex(steps), members=max(circles), slices=len(circles))
    rows, client = [], 0
    for slice_, phones in enumerate(circles):
        total, payloads, clients = np.zeros(adder.count(slice_, len(circles)), np.int64), [], []
        for _ in range(phones):
            quantized = adder.encode(
                phones_input(size, client), RoundKey(5, 3, client),
                steps=bytes.fromhex(steps), slice_=slice_, slices=len(circles),
            )  # fmt: skip
            total += quantized.residues
            payloads.append(adder.pack(quantized.residues))
            clients.append(client)
            client += 1
        wrapped = summed.add_circle(total, clients, slice_)
        rows.append({
            "slice": slice_, "clients": clients, "wrapped": wrapped,
            "inputs": [None if long else phones_input(size, each).astype("<f4").tobytes().hex() for each in clients],
            "payloads": [hashlib.sha256(payload).hexdigest() if long else payload.hex() for payload in payloads],
        })  # fmt: skip
    mean = summed.mean().astype("<f4").tobytes()
    return {
        "spec": spec, "shapes": shapes, "seed": 5, "round": 3, "steps": steps, "clip": clip, "slices": len(circles),
        "circles": rows, "mean": hashlib.sha256(mean).hexdigest() if long else mean.hex(),
    }  # fmt: skip


def written(document: dict[str, Any]) -> str:
    """Return the file's text: a line for each vector."""
    groups = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
        for name, rows in document.items()
    ]
    return "{\n" + ",\n".join(groups) + "\n}\n"


if __name__ == "__main__":
    PAGE.write_text(written(vectors()), encoding="utf-8")
