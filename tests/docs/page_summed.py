"""A phone and a server of sums, written after docs/CODECS.md, section "Sums": plain Python, nothing of featherfed."""

import math
from collections.abc import Sequence

from tests.docs.page_arithmetic import f32, transform
from tests.docs.page_phone import BLOCK, Key, Spec, back, parts_of, spread, weights_of
from tests.docs.page_random import positions as drawn_positions

ROOTS = (
    1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
    1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424,
)  # fmt: skip


def step(byte: int, clip: float) -> float:
    return float(clip * (ROOTS[(byte - 192) % 8] * 2.0 ** ((byte - 192) // 8)))


def shared(key: Key) -> Key:
    return Key(key.seed, key.round_number, -1)


def kept_places(spec: Spec, shapes: Sequence[Sequence[int]], key: Key) -> list[list[int]]:
    """Return the places in each part whose values are sent."""
    places = []
    for index, (size, exact) in enumerate(parts_of(spec, shapes)):
        assert not exact
        if "subsample" in spec.stages:
            places.append(drawn_positions(size, spec.kept("subsample", size), shared(key).generator(f"sparse/{index}")))
        else:
            places.append(list(range(size)))
    return places


def blocks_of(count: int) -> list[int]:
    """Return the block of each kept value: a rest of less than half a block belongs to the one before."""
    last = max(1, (count + BLOCK // 2) // BLOCK) - 1
    return [min(j // BLOCK, last) for j in range(count)]


def summed_floats(values: Sequence[float]) -> float:
    """Return a sum of float64 numbers in the page's order."""
    width = 1
    while width < len(values):
        width *= 2
    row = [*values, *[0.0] * (width - len(values))]
    while width >= 16:
        width //= 8
        eighths = [row[i * width : (i + 1) * width] for i in range(8)]
        row = eighths[0]
        for eighth in eighths[1:]:
            row = [a + b for a, b in zip(row, eighth, strict=True)]
    while width > 1:
        width //= 2
        row = [a + b for a, b in zip(row[:width], row[width:], strict=True)]
    return row[0]


def clipped(values: Sequence[float], clip: float) -> list[float]:
    squares = [x * x for x in values]
    norm = math.sqrt(sum((summed_floats(squares[i : i + 65536]) for i in range(0, len(squares), 65536)), 0.0))
    return list(values) if norm <= clip else [f32(x * f32(clip / norm)) for x in values]


def rotated_forward(values: Sequence[float], key: Key) -> list[float]:
    kept, result = len(values), list(values)
    if kept <= 1:
        return result
    order = min(BLOCK, 1 << kept.bit_length() - 1)
    rest = kept % order
    main = kept - rest
    words = -(-main // 32) * 32
    signs = shared(key).generator("rotate/0").signs(words + order)
    if rest:
        flipped = [x * sign for x, sign in zip(result[kept - order :], signs[words : words + order], strict=True)]
        result[kept - order :] = transform(flipped)
    for start in range(0, main, order):
        block = slice(start, start + order)
        result[block] = transform([x * sign for x, sign in zip(result[block], signs[block], strict=True)])
    return result


def dither(key: Key, count: int) -> list[int]:
    generator = key.generator("dither")
    outputs = [generator.output() for _ in range(-(-count // 4))]
    return [outputs[i // 4] >> 16 * (i % 4) & 0xFFFF for i in range(count)]


def residues(
    text: str, shapes: Sequence[Sequence[int]], key: Key, values: Sequence[float], steps: bytes, clip: float,
    slice_: int, slices: int,
) -> list[int]:  # fmt: skip
    """Return what a phone sends of its coordinates."""
    spec = Spec.parse(text)
    values, kept, start = clipped(values, clip), [], 0
    for (size, _), places in zip(parts_of(spec, shapes), kept_places(spec, shapes, key), strict=True):
        kept += [values[start + place] for place in places]
        start += size
    if "rotate_shared" in spec.stages:
        kept = rotated_forward(kept, key)
    sizes = [step(steps[block], clip) for block in blocks_of(len(kept))]
    scaled = [round(x * (65536 / size)) for x, size in zip(kept, sizes, strict=True)][slice_::slices]
    drawn = dither(key, len(scaled))
    return [(v + w >> 16) % (1 << spec.number("grid")) for v, w in zip(scaled, drawn, strict=True)]


def packed(numbers: Sequence[int], bits: int) -> bytes:
    text = "".join(f"{number:0{bits}b}" for number in numbers)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def unpacked(data: bytes, count: int, bits: int) -> list[int]:
    text = "".join(f"{byte:08b}" for byte in data)
    assert len(data) == -(-count * bits // 8) and "1" not in text[count * bits :]
    return [int(text[i * bits : (i + 1) * bits], 2) for i in range(count)]


def mean(
    text: str, shapes: Sequence[Sequence[int]], key: Key, circles: Sequence[tuple[int, Sequence[int], Sequence[bytes]]],
    steps: bytes, clip: float, slices: int,
) -> list[float]:  # fmt: skip
    """Return the mean update of circles, each with its slice, its clients and their payloads."""
    spec = Spec.parse(text)
    bits, places = spec.number("grid"), kept_places(spec, shapes, key)
    count = sum(map(len, places))
    block_of = blocks_of(count)
    sums, phones = [0] * count, [0] * count
    for slice_, clients, payloads in circles:
        mine = list(range(slice_, count, slices))
        rows = [unpacked(payload, len(mine), bits) for payload in payloads]
        dithers = [dither(Key(key.seed, key.round_number, client), len(mine)) for client in clients]
        half = 1 << (bits + 16)
        total = []
        for i in range(len(mine)):
            exact = sum(row[i] << 17 for row in rows) - sum(2 * drawn[i] + 1 for drawn in dithers) + (len(rows) << 16)
            total.append((exact + half) % (2 * half) - half)
        for block in set(block_of):
            at = [i for i, place in enumerate(mine) if block_of[place] == block]
            longest = 0.24 * (1 << bits + 8)
            if sum((total[i] >> 9) ** 2 for i in at) > longest * longest * len(at):
                continue
            for i in at:
                sums[mine[i]] += total[i]
                phones[mine[i]] += len(clients)
    values = [
        f32(s * (step(steps[block], clip) / (n << 17))) if n else 0.0
        for s, n, block in zip(sums, phones, block_of, strict=True)
    ]
    if "rotate_shared" in spec.stages:
        values = back(spec, values, None, key, 0)
    coordinates, at_value = [], 0
    for (size, _), chosen in zip(parts_of(spec, shapes), places, strict=True):
        run = values[at_value : at_value + len(chosen)]
        at_value += len(chosen)
        if "subsample" in spec.stages:
            edges = [j * size // len(chosen) for j in range(len(chosen) + 1)]
            run = [f32(x * (edges[j + 1] - edges[j])) for j, x in enumerate(run)]
        coordinates.append(spread(run, chosen, size))
    return weights_of(spec, shapes, coordinates, shared(key))
