"""Differences on a lattice after docs/CODECS.md, section "Whole steps", in plain Python."""

import math
from collections.abc import Sequence

from tests.docs.page_arithmetic import f32
from tests.docs.page_symbols import Payload, RangeCode, edges_of


def moved(weights: Sequence[float], shapes: Sequence[Sequence[int]], difference: bytes) -> list[float]:
    """Return what the weights become."""
    if difference == b"\0":
        return list(weights)
    sizes = [math.prod(shape) for shape in shapes]
    payload = Payload(difference)
    largest = payload.take(1)[0] - 128
    assert -100 <= largest <= 64
    steps = [2.0 ** (largest - finer) for finer in payload.packed(len(sizes), 4)]
    of_each = [step for step, size in zip(steps, sizes, strict=True) for _ in range(size)]
    numbers = whole_numbers(payload, sizes)
    result = []
    for weight, step, number in zip(weights, of_each, numbers, strict=True):
        shift = 1.5 * 2.0**19 * step
        result.append(f32(f32(f32(weight + shift) - shift) + step * number))
    assert all(map(math.isfinite, result))
    return result


def whole_numbers(payload: Payload, sizes: Sequence[int]) -> list[int]:
    assert len(payload.left) <= 66 * len(sizes) + 5 * sum(sizes) + 8
    runs: list[tuple[int, int, list[int]]] = []  # size, m, weights
    for size in sizes:
        first = payload.take(1)[0]
        if first == 255:
            runs[-1] = (runs[-1][0] + size, *runs[-1][1:])
            continue
        m, larger = first & 127, first >> 7
        assert m <= 63
        weights = list(payload.take(m + 1 + larger)) if first else []
        assert all(byte <= 135 for byte in weights)
        runs.append((size, m, [8 + byte % 8 << byte // 8 for byte in weights]))
    code = RangeCode(payload.left)
    return [number for size, m, weights in runs for number in run(code, size, m, weights)]


def run(code: RangeCode, size: int, m: int, weights: list[int]) -> list[int]:
    if not weights or not size:
        return [0] * size
    of_symbols = [weights[(symbol + 1) // 2] for symbol in range(2 * m + 1)] + weights[m + 1 :]
    count, total = len(of_symbols), sum(of_symbols)
    g = max(g for g in range(1, 6) if g == 1 or (count**g <= 4096 and total**g < 2**48))
    grouped = of_symbols
    for _ in range(g - 1):
        grouped = [first * second for first in grouped for second in of_symbols]
    edges, symbols = edges_of(grouped), []
    for _ in range(-(-size // g)):
        group = code.symbol(edges)
        symbols += [group // count**place % count for place in reversed(range(g))]
    numbers = [symbol // 2 if symbol % 2 == 0 else -(symbol + 1) // 2 for symbol in symbols[:size]]
    places = [place for place, symbol in enumerate(symbols[:size]) if symbol == 2 * m + 1]
    classes = [code.uniform(24) for _ in places]
    for e in range(24):
        for place, of in zip(places, classes, strict=True):
            if of == e:
                number = code.uniform(2 ** (e + 1))
                numbers[place] = (m + 2**e + number // 2) * (-1 if number % 2 else 1)
    return numbers
