"""A decoder written after docs/CODECS.md, as somebody would who writes a phone in another language.

Plain Python: nothing of featherfed or numpy. Where it differs from the code, either is wrong, or the page is.
"""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tests.docs.page_arithmetic import f32, hadamard, rho, to_whole, transform, transform_whole
from tests.docs.page_random import PageGenerator, digest_of
from tests.docs.page_random import positions as drawn_positions
from tests.docs.page_symbols import Payload, positions, symbols

BLOCK = 8192
F16, F32 = ("<e", 2), ("<f", 4)


@dataclass(frozen=True)
class Spec:
    """Stages by name, with the text in their parentheses."""

    stages: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "Spec":
        matches = [re.fullmatch(r"([a-z0-9_]+)(?:\((.+)\))?", part.strip()) for part in text.split("|")]
        return cls({match[1]: match[2] or "" for match in matches if match})

    def number(self, name: str) -> int:
        return int(self.stages[name])

    def kept(self, name: str, size: int) -> int:
        return max(1, round(Fraction(self.stages[name]) * size)) if size else 0


@dataclass(frozen=True)
class Key:
    seed: int
    round_number: int
    client: int

    def generator(self, purpose: str, *, shared: bool = False) -> PageGenerator:
        return PageGenerator.of(digest_of(self.seed, self.round_number, -1 if shared else self.client, purpose))


def floats(data: bytes, kind: tuple[str, int] = F32) -> list[float]:
    form, size = kind
    values = [struct.unpack(form, data[i : i + size])[0] for i in range(0, len(data), size)]
    assert all(map(math.isfinite, values))
    return values


def decode(
    text: str, shapes: Sequence[Sequence[int]], key: Key, data: bytes, levels: dict[str, list[int]]
) -> list[float]:
    """Return the update; `levels` are the page's, by stage with its number."""
    spec, payload = Spec.parse(text), Payload(data)
    coordinates = []
    for index, (size, exact) in enumerate(parts_of(spec, shapes)):
        if exact:
            coordinates.append(floats(payload.take(4 * size)))
        else:
            coordinates.append(part(spec, payload, size, key, index, levels))
    assert not payload.left
    return weights_of(spec, shapes, coordinates, key)


def exact_below(spec: Spec) -> int:
    return spec.number("exact") if "exact" in spec.stages else 64


def parts_of(spec: Spec, shapes: Sequence[Sequence[int]]) -> list[tuple[int, bool]]:
    """Return how many numbers each part has, and whether it travels as it is."""
    below = exact_below(spec)
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(sizes)
    parts = [(size, size < below) for size in sizes]
    if "flat" in spec.stages:
        parts = [(total, total < below)]
    if "subspace" in spec.stages:
        parts = [(min(spec.number("subspace"), total), False)]
    if "mask" in spec.stages:
        parts = [(size if exact else spec.kept("mask", size), exact) for size, exact in parts]
    if "lowrank" in spec.stages:
        ranks = [rank(spec, shape, below) for shape in shapes]
        parts = [
            (k * shape[0] if k else math.prod(shape), math.prod(shape) < below)
            for k, shape in zip(ranks, shapes, strict=True)
        ]
    return parts


def weights_of(
    spec: Spec, shapes: Sequence[Sequence[int]], coordinates: Sequence[Sequence[float]], key: Key
) -> list[float]:
    """Return the weights that the parts' numbers stand for."""
    below = exact_below(spec)
    sizes = [math.prod(shape) for shape in shapes]
    if "mask" in spec.stages:
        return [x for i, size in enumerate(sizes) for x in masked(spec, size, coordinates[i], below, key, i)]
    if "lowrank" in spec.stages:
        ranks = [rank(spec, shape, below) for shape in shapes]
        return [x for i, shape in enumerate(shapes) for x in product(shape, ranks[i], coordinates[i], key, i)]
    flat = [x for values in coordinates for x in values]
    return expand(flat, sum(sizes), key) if "subspace" in spec.stages else flat


def part(spec: Spec, payload: Payload, size: int, key: Key, index: int, levels: dict[str, list[int]]) -> list[float]:
    if "topk" in spec.stages:
        kept = spec.kept("topk", size)
        places = positions(payload, size, kept, entropy="entropy" in spec.stages)
        return spread(values_of(spec, payload, kept, key, index, levels), places, size)
    if "subsample" in spec.stages:
        kept = spec.kept("subsample", size)
        values = values_of(spec, payload, kept, key, index, levels)
        edges = [j * size // kept for j in range(kept + 1)]
        values = [f32(x * (edges[j + 1] - edges[j])) for j, x in enumerate(values)]
        return spread(values, drawn_positions(size, kept, key.generator(f"sparse/{index}")), size)
    return values_of(spec, payload, size, key, index, levels)


def spread(values: Sequence[float], places: Sequence[int], size: int) -> list[float]:
    result = [0.0] * size
    for place, value in zip(places, values, strict=True):
        result[place] = value
    return result


def values_of(
    spec: Spec, payload: Payload, kept: int, key: Key, index: int, levels: dict[str, list[int]]
) -> list[float]:
    whole = next((name for name in ("eden", "stochastic", "vertex") if name in spec.stages), None)
    blocks = -(-kept // BLOCK)
    if whole is None:
        values = header_and_symbols(spec, payload, kept)
        return back(spec, values, None, key, index) if rotated(spec) else values
    numbers = floats(payload.take(4 * blocks))
    entropy = "entropy" in spec.stages
    if whole == "vertex":
        each = spec.number("vertex")
        q = [0] * (-(-kept // each) * each)
        for run, s in enumerate(symbols(payload, -(-kept // each), each.bit_length(), 2 * each, entropy=entropy)):
            q[run * each + s % each] = -1 if s >= each else 1
        assert not any(q[kept:])
        return back(spec, q[:kept], numbers, key, index)
    bits = spec.number(whole)
    table = levels[f"{whole}({bits})"]
    drawn = symbols(payload, kept, bits, 1 << bits, entropy=entropy)
    return back(spec, [table[s] for s in drawn], numbers, key, index)


def header_and_symbols(spec: Spec, payload: Payload, kept: int) -> list[float]:
    entropy = "entropy" in spec.stages
    if not kept:
        return []
    if "float16" in spec.stages:
        return floats(payload.take(2 * kept), F16)
    if "bfloat16" in spec.stages:
        upper = payload.take(2 * kept)
        return floats(b"".join(b"\0\0" + upper[i : i + 2] for i in range(0, 2 * kept, 2)))
    if "quantize" in spec.stages:
        bits = spec.number("quantize")
        low, high = floats(payload.take(8))
        weights = [f32(s / (2**bits - 1)) for s in range(1 << bits)]
        table = [f32(f32(low * f32(1 - w)) + f32(high * w)) for w in weights]
        return [table[s] for s in symbols(payload, kept, bits, 1 << bits, entropy=entropy)]
    if "qsgd" in spec.stages:
        bits = spec.number("qsgd")
        (norm,) = floats(payload.take(4))
        steps = 2 ** (bits - 1) - 1
        half = [f32(norm * f32(m / steps)) for m in range(steps + 1)]
        table = [*half, *(-x for x in half)]
        return [table[s] for s in symbols(payload, kept, bits, 1 << bits, entropy=entropy)]
    if "sign" in spec.stages or "ternary" in spec.stages:
        (mean,) = floats(payload.take(4))
        return [mean if s else -mean for s in symbols(payload, kept, 1, 2, entropy=entropy)]
    return floats(payload.take(4 * kept))


def rotated(spec: Spec) -> bool:
    return "rotate" in spec.stages or "rotate_shared" in spec.stages


def back(spec: Spec, values: Sequence[float], numbers: list[float] | None, key: Key, index: int) -> list[float]:
    kept = len(values)
    result = [f32(x * numbers[i // BLOCK]) for i, x in enumerate(values)] if numbers else list(values)
    if kept <= 1:
        return result
    order = min(BLOCK, 1 << kept.bit_length() - 1)
    rest = kept % order
    main = kept - rest
    words = -(-main // 32) * 32
    signs = key.generator(f"rotate/{index}", shared="rotate_shared" in spec.stages).signs(words + order)
    for start in range(0, main, order):
        block = slice(start, start + order)
        if numbers:
            turned = transform_whole([int(q) for q in values[block]], numbers[start // BLOCK])
        else:
            turned = transform(values[block])
        result[block] = [x * sign for x, sign in zip(turned, signs[block], strict=True)]
    if rest:
        turned = transform(result[kept - order :])
        result[kept - order :] = [x * sign for x, sign in zip(turned, signs[words : words + order], strict=True)]
    return result


def masked(spec: Spec, size: int, values: Sequence[float], below: int, key: Key, index: int) -> list[float]:
    if size < below:
        return list(values)
    return spread(values, drawn_positions(size, len(values), key.generator(f"mask/{index}")), size)


def rank(spec: Spec, shape: Sequence[int], below: int) -> int:
    if len(shape) < 2 or math.prod(shape) < below or not math.prod(shape):
        return 0
    rows, columns = math.prod(shape[1:]), shape[0]
    k = max(1, round(Fraction(spec.stages["lowrank"]) * min(rows, columns)))
    return k if k < rows else 0


def product(shape: Sequence[int], k: int, values: Sequence[float], key: Key, index: int) -> list[float]:
    if not k:
        return list(values)
    rows, columns = math.prod(shape[1:]), shape[0]
    a = key.generator(f"lowrank/{index}").signs(rows * k)
    b, unit = to_whole(values, 24 - (k - 1).bit_length())
    scale = f32(unit * f32(1 / f32(math.sqrt(rows))))
    return [
        f32(sum(a[row * k + i] * b[i * columns + column] for i in range(k)) * scale)
        for column in range(columns)
        for row in range(rows)
    ]


def expand(c: Sequence[float], size: int, key: Key) -> list[float]:
    k = (len(c) - 1).bit_length()
    order = 1 << k
    whole, unit = to_whole([*c, *[0.0] * (order - len(c))], 30)
    moved = [f32(x * (unit * rho(k))) for x in hadamard(whole, 0, k)]
    share = f32(1 / f32(math.sqrt(max(1, -(-size // order)))))
    signs = key.generator("subspace").signs(size)
    return [f32(moved[i % order] * (sign * share)) for i, sign in enumerate(signs)]
