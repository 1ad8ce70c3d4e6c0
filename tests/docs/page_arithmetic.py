"""Arithmetic after docs/CODECS.md, section "Arithmetic": Python's doubles, each result rounded to float32."""

import math
import struct
from collections.abc import Sequence

ROOT_HALF = 11863283 * 2.0**-24


def f32(x: float) -> float:
    """What `Math.fround` is in JavaScript."""
    try:
        result: float = struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)
    return result


def exponent_of(values: Sequence[float]) -> int:
    largest = max((abs(x) for x in values), default=0.0)
    return max(math.frexp(largest)[1], -96) if largest else -96


def to_whole(values: Sequence[float], bits: int) -> tuple[list[int], float]:
    unit = 2.0 ** (exponent_of(values) - bits)
    return [round(x / unit) for x in values], unit  # exact quotients; Python rounds a half to even


def hadamard(values: Sequence[int], low: int, high: int) -> list[int]:
    """Multiply by the matrix of ±1 over the bits low … high − 1 of the place."""
    result = list(values)
    for bit in range(low, high):
        step = 1 << bit
        for i in range(len(result)):
            if not i & step:
                result[i], result[i + step] = result[i] + result[i + step], result[i] - result[i + step]
    return result


def rho(k: int) -> float:
    return 2.0 ** -(k // 2) * (ROOT_HALF if k % 2 else 1.0)


def transform(block: Sequence[float]) -> list[float]:
    k = len(block).bit_length() - 1
    q, unit = to_whole(block, 15)
    q = hadamard(q, 0, k - k // 3)
    if k > 9:
        q = [round(x / 2 ** (k - 9)) for x in q]
        unit *= 2 ** (k - 9)
    q = hadamard(q, k - k // 3, k)
    scale = f32(unit * rho(k))
    return [f32(x * scale) for x in q]


def transform_whole(block: Sequence[int], number: float) -> list[float]:
    k = len(block).bit_length() - 1
    scale = f32(number * rho(k))
    return [f32(x * scale) for x in hadamard(block, 0, k)]
