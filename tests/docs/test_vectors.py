"""docs/vectors.json is what the code gives, and what a decoder gives that was written after docs/CODECS.md alone."""

import hashlib
import json
import math
import random
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherfed.codec import lattice
from featherfed.codec.grammar import STAGES
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey
from tests.docs import page_initial, page_lattice, page_phone, page_summed, vectors
from tests.docs.page_arithmetic import f32
from tests.docs.page_random import PageGenerator, digest_of

DOCUMENT: dict[str, list[dict[str, Any]]] = json.loads(vectors.PAGE.read_text(encoding="utf-8"))
TEXT = (Path(__file__).parents[2] / "docs" / "CODECS.md").read_text(encoding="utf-8")


def page_levels() -> dict[str, list[int]]:
    """Return the tables of the page, with both signs and rising."""
    found = re.findall(r"^((?:eden|stochastic)\(\d\)) +((?:[\d ]+\n)+)", TEXT, re.MULTILINE)
    positive = {name: [int(number) for number in numbers.split()] for name, numbers in found}
    return {name: [*(-q for q in reversed(row)), *row] for name, row in positive.items()}


LEVELS = page_levels()


def page_key(row: dict[str, Any]) -> page_phone.Key:
    return page_phone.Key(row["seed"], row["round"], row["client"])


def floats(text: str) -> list[float]:
    data = bytes.fromhex(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def bits(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def test_the_file_is_what_the_code_gives() -> None:
    """A change of these is a change of the protocol; `python -m tests.docs.vectors` writes them anew."""
    assert vectors.written(vectors.vectors()) == vectors.PAGE.read_text(encoding="utf-8")


def test_every_stage_has_a_vector() -> None:
    used = {stage.name for row in DOCUMENT["stages"] + DOCUMENT["sums"] for stage in Pipeline.parse(row["spec"]).stages}
    # Feedback changes what is encoded, and nothing of what is decoded.
    assert used == set(STAGES) - {"feedback"}


@pytest.mark.parametrize("bits", [*(f"eden({b})" for b in range(1, 5)), *(f"stochastic({b})" for b in range(1, 9))])
def test_levels_are_the_ones_of_the_page(bits: str) -> None:
    assert LEVELS[bits] == Pipeline.parse(f"rotate | {bits}").quantizer.block_levels.tolist()


@pytest.mark.parametrize("row", DOCUMENT["keys"], ids=lambda row: row["purpose"] or "no purpose")
def test_page_draws_what_the_vectors_say(row: dict[str, Any]) -> None:
    digest = digest_of(row["seed"], row["round"], row["client"], row["purpose"])
    assert digest.hex() == row["digest"]
    generator = PageGenerator.of(digest)
    assert [f"{generator.output():016x}" for _ in range(4)] == row["outputs"]
    assert PageGenerator.of(digest).bytes(13).hex() == row["bytes"]
    generator = PageGenerator.of(digest)
    assert struct.pack("<3d", *(generator.random() for _ in range(3))).hex() == row["doubles"]
    generator = PageGenerator.of(digest)
    mixed = [f"{generator.word():08x}", generator.random().hex(), f"{generator.word():08x}"]
    assert mixed == row["words, an output, a word"]


@pytest.mark.parametrize("row", DOCUMENT["initial"], ids=lambda row: f"seed {row['seed']}")
def test_page_draws_the_initial_weights_of_the_vectors(row: dict[str, Any]) -> None:
    weights = bits(page_initial.weights(row["draws"], row["shapes"], row["seed"]))
    assert weights.hex() == row["weights"]
    assert hashlib.sha256(weights).hexdigest()[:16] == row["digest"]


@pytest.mark.parametrize("row", DOCUMENT["stages"], ids=lambda row: row["spec"])
def test_page_decodes_what_the_vectors_say(row: dict[str, Any]) -> None:
    decoded = page_phone.decode(row["spec"], row["shapes"], page_key(row), bytes.fromhex(row["payload"]), LEVELS)
    assert bits(decoded) == bytes.fromhex(row["decoded"])


@pytest.mark.parametrize("row", DOCUMENT["stages"], ids=lambda row: row["spec"])
def test_page_refuses_what_the_code_refuses(row: dict[str, Any]) -> None:
    """Payloads with a byte changed: both decode them to the same values, or neither does."""
    pipeline, key = Pipeline.parse(row["spec"]), page_key(row)
    layout = Layout(tuple(Tensor(str(number), tuple(shape)) for number, shape in enumerate(row["shapes"])))
    payload, draw = bytes.fromhex(row["payload"]), random.Random(row["spec"])
    for _ in range(12):
        changed = bytearray(payload)
        # Headers and what says how the rest is coded lie in front.
        changed[draw.randrange(min(len(payload), draw.choice((8, 40, len(payload)))))] = draw.randrange(256)
        try:
            expected = pipeline.decode(bytes(changed), layout, RoundKey(key.seed, key.round_number, key.client))
        except CodecError:
            with pytest.raises((AssertionError, IndexError, OverflowError)):
                bits(page_phone.decode(row["spec"], row["shapes"], key, bytes(changed), LEVELS))
            continue
        there = page_phone.decode(row["spec"], row["shapes"], key, bytes(changed), LEVELS)
        assert bits(there) == expected.tobytes()


@pytest.mark.parametrize("row", DOCUMENT["long"], ids=lambda row: row["spec"])
def test_page_decodes_long_payloads(row: dict[str, Any]) -> None:
    (size,) = row["shapes"][0]
    data = vectors.encoded(row["spec"], size)[0] if row["payload"] is None else bytes.fromhex(row["payload"])
    assert hashlib.sha256(data).hexdigest() == row["payload SHA-256"]
    decoded = page_phone.decode(row["spec"], row["shapes"], page_key(row), data, LEVELS)
    assert hashlib.sha256(bits(decoded)).hexdigest() == row["decoded SHA-256"]


@pytest.mark.parametrize("row", DOCUMENT["sums"], ids=lambda row: row["spec"])
def test_page_sends_and_sums_what_the_vectors_say(row: dict[str, Any]) -> None:
    """Both ends: a phone and a server that know nothing but the page."""
    steps, clip, slices = bytes.fromhex(row["steps"]), row["clip"], row["slices"]
    long, circles = row["circles"][0]["inputs"][0] is None, []
    for circle in row["circles"]:
        sent = []
        for client, given, payload in zip(circle["clients"], circle["inputs"], circle["payloads"], strict=True):
            values = vectors.phones_input(row["shapes"][0][0], client).tolist() if long else floats(given)
            key = page_phone.Key(row["seed"], row["round"], client)
            numbers = page_summed.residues(
                row["spec"], row["shapes"], key, values, steps, clip, circle["slice"], slices
            )  # fmt: skip
            data = page_summed.packed(numbers, page_phone.Spec.parse(row["spec"]).number("grid"))
            assert (hashlib.sha256(data).hexdigest() if long else data.hex()) == payload
            sent.append(data)
        circles.append((circle["slice"], circle["clients"], sent))
    key = page_phone.Key(row["seed"], row["round"], -1)
    mean = bits(page_summed.mean(row["spec"], row["shapes"], key, circles, steps, clip, slices))
    assert (hashlib.sha256(mean).hexdigest() if long else mean.hex()) == row["mean"]


@pytest.mark.parametrize("row", DOCUMENT["lattice"], ids=lambda row: str(row["exponents"]))
def test_page_moves_weights_on_the_lattice_as_the_vectors_say(row: dict[str, Any]) -> None:
    difference, weights = bytes.fromhex(row["difference"]), floats(row["weights"])
    sizes = [math.prod(shape) for shape in row["shapes"]]
    head = 1 + -(-len(sizes) * 4 // 8)
    assert page_lattice.whole_numbers(page_lattice.Payload(difference[head:]), sizes) == row["numbers"]
    assert bits(page_lattice.moved(weights, row["shapes"], difference)) == bytes.fromhex(row["moved"])
    assert page_lattice.moved(weights, row["shapes"], b"\0") == weights


@pytest.mark.parametrize("row", DOCUMENT["lattice"], ids=lambda row: str(row["exponents"]))
def test_page_refuses_the_differences_that_the_code_refuses(row: dict[str, Any]) -> None:
    layout = Layout(tuple(Tensor(str(number), tuple(shape)) for number, shape in enumerate(row["shapes"])))
    difference, draw = bytes.fromhex(row["difference"]), random.Random(row["difference"])
    weights = np.frombuffer(bytes.fromhex(row["weights"]), "<f4").astype(np.float32)
    for _ in range(40):
        changed = bytearray(difference)
        changed[draw.randrange(min(len(changed), draw.choice((4, 12, len(changed)))))] = draw.randrange(256)
        try:
            exponents, numbers = lattice.decode(bytes(changed), layout)
            expected = lattice.moved(weights, numbers, exponents, layout)
        except CodecError:
            with pytest.raises((AssertionError, IndexError, OverflowError)):
                bits(page_lattice.moved(weights.tolist(), row["shapes"], bytes(changed)))
            continue
        there = page_lattice.moved(weights.tolist(), row["shapes"], bytes(changed))
        assert bits(there) == expected.tobytes()


def test_rounding_to_float32_is_numpys() -> None:
    for x in (0.1, 1 / 3, 1e-45, 7e-46, 3.4e38, 1e39, -1e39, 2.0**-149):
        with np.errstate(over="ignore"):
            assert f32(x) == float(np.float32(x))
