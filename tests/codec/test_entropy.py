"""The range code is what docs/CODECS.md says: a decoder of our own, after that page, reads what constriction wrote."""

from collections.abc import Sequence

import numpy as np
import pytest

from featherfed.codec.entropy import Entropy, RangeDecoder, model_of, read_length
from featherfed.codec.golomb import encode_positions, from_gaps
from featherfed.codec.quantize import Quantize
from featherfed.codec.stage import Reader
from featherfed.errors import CodecError

PRECISION = 24


class PageDecoder:
    """The decoder of the page, in plain integers."""

    def __init__(self, code: bytes) -> None:
        code += bytes(-len(code) % 4)
        self.words = [int.from_bytes(code[i : i + 4], "little") for i in range(0, len(code), 4)]
        self.low, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, edges: Sequence[int]) -> int:
        scale = self.range >> PRECISION
        quantile = (self.point - self.low) % 2**64 // scale
        symbol = max(i for i in range(len(edges) - 1) if edges[i] <= quantile)
        self.low = (self.low + scale * edges[symbol]) % 2**64
        self.range = scale * (edges[symbol + 1] - edges[symbol])
        if self.range < 2**32:
            self.low = self.low << 32 & 2**64 - 1
            self.range <<= 32
            self.point = (self.point << 32 | self.word()) & 2**64 - 1
        return symbol

    def uniform(self, count: int) -> int:
        step = 2**PRECISION // count
        return self.symbol([*(i * step for i in range(count)), 2**PRECISION])


def edges_of(weights: Sequence[int]) -> list[int]:
    scale = float(2**PRECISION - len(weights)) / sum(weights)
    return [*(int(sum(weights[:number]) * scale) + number for number in range(len(weights))), 2**PRECISION]


@pytest.mark.parametrize("seed", range(20))
def test_any_histogram_has_the_edges_of_the_page(seed: int) -> None:
    """Where shares were summed as floats, one in a few hundred histograms had an edge that differed by one."""
    generator = np.random.default_rng(seed)
    for _ in range(10):
        weights = generator.integers(1, 256, generator.integers(2, 256)).astype(np.uint8)
        edges = edges_of(weights.tolist())
        # The symbols just below and just above each edge decode as they should where a code begins with that quantile.
        for number in generator.integers(1, len(weights), 5):
            for quantile, expected in ((edges[number] - 1, number - 1), (edges[number], number)):
                # A decoder's first point over its first scale, 2^64 − 1 >> 24 = 2^40 − 1, is the quantile.
                point = quantile * (2**40 - 1)
                code = np.array([point >> 32, point & 2**32 - 1], np.uint32)
                assert RangeDecoder(code).decode(model_of(weights), 1)[0] == expected


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_symbols_decode_as_the_page_says(bits: int) -> None:
    generator, quantizer = np.random.default_rng(bits), Quantize(bits)
    symbols = np.minimum(generator.geometric(0.7, 3000) - 1, quantizer.levels - 1).astype(np.uint8)
    reader = Reader(Entropy().encode(symbols, quantizer))
    assert reader.take(1) == b"\1"
    weights = list(reader.take(quantizer.levels))
    there = [symbol for symbol, weight in enumerate(weights) if weight]
    decoder = PageDecoder(reader.take(read_length(reader)))
    reader.finish()
    edges = edges_of([weight for weight in weights if weight])
    assert [there[decoder.symbol(edges)] for _ in symbols] == symbols.tolist()


def test_positions_decode_as_the_page_says() -> None:
    size = 200_000
    clustered = np.random.default_rng(0).choice(3000, 400, replace=False)
    positions = np.sort(np.concatenate([clustered, [9_000, 90_000, 199_999]])).astype(np.int64)
    reader = Reader(Entropy().encode_positions(positions, size))
    assert reader.take(1) == b"\1"
    weights = list(reader.take(reader.take(1)[0]))
    there = [e for e, weight in enumerate(weights) if weight]
    decoder = PageDecoder(reader.take(read_length(reader)))
    reader.finish()
    edges = edges_of([weight for weight in weights if weight])
    classes = [there[decoder.symbol(edges)] for _ in positions]
    gaps = [0] * len(positions)
    for e in there:
        for place in (place for place, of in enumerate(classes) if of == e):
            gaps[place] = (1 << e) + (decoder.uniform(1 << e) if e else 0) - 1
    assert from_gaps(np.array(gaps), size).tolist() == positions.tolist()


def test_clustered_positions_take_less_than_golomb_and_random_ones_one_byte_more() -> None:
    size, generator = 1 << 18, np.random.default_rng(0)
    random = np.sort(generator.choice(size, 655, replace=False)).astype(np.int64)
    rows = np.sort(generator.choice(4096, 22, replace=False)).astype(np.int64)
    clustered = (64 * rows[:, None] + np.arange(30)).ravel()
    assert len(Entropy().encode_positions(random, size)) <= len(encode_positions(random, size)) + 1
    assert len(Entropy().encode_positions(clustered, size)) < 0.5 * len(encode_positions(clustered, size))


@pytest.mark.parametrize(
    "payload", [b"", b"\2", b"\1", b"\1\x63" + b"\1" * 99 + b"\0", b"\1\2\0\0\0", b"\1\1\1\xff\xff"]
)
def test_broken_positions_are_refused(payload: bytes) -> None:
    with pytest.raises(CodecError):
        Entropy().decode_positions(Reader(payload), 1000, 10)
