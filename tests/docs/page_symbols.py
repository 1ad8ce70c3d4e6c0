"""Positions and symbols after docs/CODECS.md, sections "Symbols", "Positions" and "Range code", in whole numbers."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

PRECISION = 24


class Bits:
    """Bits of some bytes, highest first."""

    def __init__(self, data: bytes) -> None:
        self._bits = [byte >> 7 - i & 1 for byte in data for i in range(8)]
        self.at = 0

    def take(self, width: int) -> int:
        number = 0
        assert self.at + width <= len(self._bits)
        for bit in self._bits[self.at : self.at + width]:
            number = number << 1 | bit
        self.at += width
        return number

    def zeros(self) -> int:
        count = 0
        while not self.take(1):
            count += 1
        return count


class Payload:
    """A payload, taken from its front."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        assert count <= len(self.left)
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def packed(self, size: int, width: int) -> list[int]:
        bits = Bits(self.take(-(-size * width // 8)))
        return [bits.take(width) for _ in range(size)]

    def length(self) -> int:
        length = 0
        for place in range(5):
            digit = self.take(1)[0]
            length |= (digit & 127) << 7 * place
            if digit < 128:
                return length
        raise AssertionError("more than five bytes of length")


class RangeCode:
    """The decoder of the page."""

    def __init__(self, code: bytes) -> None:
        code += bytes(-len(code) % 4)
        self.words = [int.from_bytes(code[i : i + 4], "little") for i in range(0, len(code), 4)]
        self.low, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, edges: Sequence[int]) -> int:
        # They rise: the last one that is not above the quantile.
        symbol = bisect_right(edges, self._quantile(), hi=len(edges) - 1) - 1
        self._narrow(edges[symbol], edges[symbol + 1])
        return symbol

    def uniform(self, count: int) -> int:
        """As `symbol` of equally wide ones, of which the last has what is left; there may be millions."""
        step = 2**PRECISION // count
        number = min(self._quantile() // step, count - 1)
        self._narrow(number * step, (number + 1) * step if number < count - 1 else 2**PRECISION)
        return number

    def _quantile(self) -> int:
        quantile = (self.point - self.low) % 2**64 // (self.range >> PRECISION)
        assert quantile < 1 << PRECISION
        return quantile

    def _narrow(self, low: int, high: int) -> None:
        scale = self.range >> PRECISION
        self.low = (self.low + scale * low) % 2**64
        self.range = scale * (high - low)
        if self.range < 2**32:
            self.low = self.low << 32 & 2**64 - 1
            self.range <<= 32
            self.point = (self.point << 32 | self.word()) & 2**64 - 1


def edges_of(weights: Sequence[int]) -> list[int]:
    factor = float(2**PRECISION - len(weights)) / sum(weights)
    below = accumulate(weights[:-1], initial=0)
    return [*(int(number * factor) + i for i, number in enumerate(below)), 2**PRECISION]


def histogram(code: RangeCode, weights: Sequence[int], size: int) -> list[int]:
    there = [symbol for symbol, weight in enumerate(weights) if weight]
    if len(there) == 1:
        return there * size
    edges = edges_of([weight for weight in weights if weight])
    return [there[code.symbol(edges)] for _ in range(size)]


def plain(payload: Payload) -> bool:
    how = payload.take(1)[0]
    assert how in (0, 1)
    return how == 0


def symbols(payload: Payload, size: int, width: int, levels: int, *, entropy: bool) -> list[int]:
    if not entropy or plain(payload):
        return payload.packed(size, width)
    weights = payload.take(levels)
    return histogram(RangeCode(payload.take(payload.length())), weights, size)


def positions(payload: Payload, size: int, kept: int, *, entropy: bool) -> list[int]:
    if not entropy or plain(payload):
        return golomb(payload, size, kept)
    weights = payload.take(payload.take(1)[0])
    code = RangeCode(payload.take(payload.length()))
    classes = histogram(code, weights, kept)
    numbers = [1] * kept
    for e in range(1, len(weights)):
        for i in range(kept):
            if classes[i] == e:
                numbers[i] = (1 << e) + code.uniform(1 << e)
    return from_gaps([number - 1 for number in numbers])


def golomb(payload: Payload, size: int, kept: int) -> list[int]:
    if kept == size:
        return list(range(size))
    r = payload.take(1)[0]
    low = [0] * kept
    data = payload.take(-(-kept * r // 8))
    for byte in range(r // 8):
        for i in range(kept):
            low[i] |= data[byte * kept + i] << 8 * byte
    rest = Bits(data[r // 8 * kept :])
    low = [number | rest.take(r % 8) << r // 8 * 8 for number in low]
    unary = Bits(payload.left)
    gaps = [(unary.zeros() << r) + number for number in low]
    payload.take(-(-unary.at // 8))
    return from_gaps(gaps)


def from_gaps(gaps: Sequence[int]) -> list[int]:
    result, last = [], -1
    for gap in gaps:
        last += gap + 1
        result.append(last)
    return result
