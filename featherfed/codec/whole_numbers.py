"""Small whole numbers as bytes, lossless: a histogram for each kind of tensor, and one range code for all.

    weight of byte b:  (8 + b mod 8) · 2^⌊b/8⌋, b ≤ 135           a histogram's counts to 6 %, over 17 octaves
    symbol of d:       2d for d ≥ 0, −2d − 1 for d < 0;  2m + 1 for |d| > m, which follow as (class, sign, rest)

Differences of views are mostly zero, and alike in all tensors: neighbours whose histograms are alike share one. A
symbol of the range code stands for g values, as many as have 4096 symbols together: that is two to four times as fast,
and costs no byte, since the weight of a group is the product of its values' weights.

Layout: for each tensor one byte, 255 for the histogram of the tensor before it, else m (0 … 63) with the highest bit
set where larger values occur; then the weights of |d| = 0 … m and, with that bit, that of larger values. m = 0 without
that bit has no weights: all are zero. Behind all tables the range code up to the payload's end, without zero bytes at
its end.
In it, run by run, the groups; then each larger value's class e, of 24 that are alike, where |d| − m = 2^e + rest; then
class by class, 2·rest + (1 where d < 0), uniform below 2^(e+1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from featherfed.codec.stage import Reader
from featherfed.errors import CodecError

Whole = npt.NDArray[np.signedinteger[Any]]
Categorical, Uniform = constriction.stream.model.Categorical, constriction.stream.model.Uniform
RangeEncoder, RangeDecoder = constriction.stream.queue.RangeEncoder, constriction.stream.queue.RangeDecoder

LARGEST = 1 << 23
"""Magnitude below which values are."""
MOST_LEVELS, CLASSES, SAME, LARGER = 63, 24, 255, 128
WEIGHTS = np.array([(8 + b % 8) << b // 8 for b in range(136)], np.int64)
_MIDDLES = (WEIGHTS[:-1] + WEIGHTS[1:]) / 2
MOST_GROUPED, MOST_SYMBOLS = 5, 4096
NEARLY_ALL, FEW = 0.995, 1 << 15
MANY = 1 << 18
"""Values of which it pays to count pairs."""
EXACT_SUMS = 1 << 48
"""A group's weights, products of its values' weights, add up to less: exactly, as float64."""
VALUE_BYTES = 5
"""No value costs more on average: a symbol of a larger one, its class and 2·rest + sign are below 40 bits."""


@dataclass(frozen=True, slots=True)
class Table:
    """A histogram: `weights[j]` is that of |d| = j, the last one that of larger values where `larger` is true."""

    levels: int
    larger: bool
    weights: tuple[int, ...]

    @property
    def symbols(self) -> int:
        """Number of symbols of a value."""
        return 2 * self.levels + 1 + self.larger

    def by_symbol(self) -> npt.NDArray[np.float64]:
        """Return the weight of each symbol: both signs of a magnitude have its weight."""
        each = WEIGHTS[list(self.weights)].astype(np.float64)
        signed = np.repeat(each[: self.levels + 1], 2)[1:]
        return np.concatenate([signed, each[self.levels + 1 :]])

    def to_bytes(self) -> bytes:
        """Return the table as it travels."""
        return bytes([self.levels | LARGER * self.larger, *self.weights])


ZEROS = Table(0, False, ())


class Groups:
    """How values of a table become symbols of the range code: `size` of them are one."""

    def __init__(self, table: Table) -> None:
        each, symbols = table.by_symbol(), table.symbols
        total = int(each.sum())
        self.symbols = symbols
        self.size = max(
            size
            for size in range(1, MOST_GROUPED + 1)
            if size == 1 or (symbols**size <= MOST_SYMBOLS and total**size < EXACT_SUMS)
        )
        weights = each
        for _ in range(self.size - 1):
            weights = np.multiply.outer(weights, each).ravel()
        self.model: Any = Categorical(weights, perfect=False)

    def joined(self, symbols: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Return groups of values' symbols, the first the highest digit; zeros fill the last one."""
        if self.size == 1:
            return symbols.astype(np.int32)
        whole = len(symbols) // self.size
        columns = symbols[: whole * self.size].reshape(-1, self.size)
        if len(symbols) % self.size:
            columns = np.zeros((whole + 1, self.size), np.uint8)
            columns.reshape(-1)[: len(symbols)] = symbols
        groups = columns[:, 0].astype(np.uint16)
        for place in range(1, self.size):
            groups *= self.symbols
            groups += columns[:, place]
        return groups.astype(np.int32)

    def parted(self, groups: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.uint8]:
        """Return the symbols of `size` values."""
        rows = np.arange(self.symbols**self.size)[:, None] // self.symbols ** np.arange(self.size - 1, -1, -1)
        parted: npt.NDArray[np.uint8] = (rows % self.symbols).astype(np.uint8).take(groups, axis=0)
        return parted.reshape(-1)[:size]


def encode(values: Whole, sizes: Sequence[int]) -> bytes:
    """Return values of tensors of `sizes`, each below 2²³ in magnitude, as bytes."""
    counts, start = [], 0
    magnitudes = np.abs(values)
    for size in sizes:
        counts.append(_histogram(magnitudes[start : start + size]))
        start += size
    header: list[bytes] = []
    encoder, start = RangeEncoder(), 0
    for tensors, size, table in _runs(counts, sizes):
        header += [table.to_bytes(), bytes([SAME]) * (tensors - 1)]
        _encode_run(encoder, values[start : start + size], magnitudes[start : start + size], table)
        start += size
    code: bytes = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    return b"".join(header) + code


def decode(payload: Reader, sizes: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return the values, (sum of sizes,) int32, of all that is left of a payload; raises `CodecError`."""
    if payload.left > max_bytes(sizes):
        raise CodecError(f"{payload.left} bytes of whole numbers, and {max_bytes(sizes)} are the most")
    runs: list[tuple[int, Table]] = []
    for size in sizes:
        first = payload.take(1)[0]
        if first != SAME:
            runs.append((size, _table(first, payload)))
        elif runs:
            runs[-1] = (runs[-1][0] + size, runs[-1][1])
        else:
            raise CodecError("the first tensor has the histogram of the one before it")
    code = payload.take(payload.left)
    decoder = RangeDecoder(np.frombuffer(code + bytes(-len(code) % 4), "<u4").astype(np.uint32))
    values = np.zeros(sum(sizes), np.int32)
    start = 0
    for size, table in runs:
        if size and table.symbols > 1:
            try:
                _decode_run(decoder, values[start : start + size], table)
            except (AssertionError, ValueError) as error:
                raise CodecError(f"range code does not decode: {error}") from error
        start += size
    return values


def max_bytes(sizes: Sequence[int]) -> int:
    """Return the most bytes that `encode` gives."""
    return len(sizes) * (MOST_LEVELS + 3) + VALUE_BYTES * sum(sizes) + 8


def _table(first: int, payload: Reader) -> Table:
    levels, larger = first & ~LARGER, bool(first & LARGER)
    if levels > MOST_LEVELS:
        raise CodecError(f"histogram of {levels} levels, at most {MOST_LEVELS} are known")
    if not levels and not larger:
        return ZEROS
    weights = payload.take(levels + 1 + larger)
    if max(weights) >= len(WEIGHTS):
        raise CodecError(f"weight {max(weights)} in a histogram, at most {len(WEIGHTS) - 1} is known")
    return Table(levels, larger, tuple(weights))


def _encode_run(encoder: Any, values: Whole, magnitudes: Whole, table: Table) -> None:
    if table.symbols == 1 or not len(values):
        return
    groups = Groups(table)
    # Zigzag: the sign is the lowest bit. Of larger values, which are replaced, the low bits alone are there.
    signed = (values << 1) ^ (values >> (8 * values.itemsize - 1))
    symbols = signed.view(np.uint8) if values.itemsize == 1 else signed.astype(np.uint8)
    larger = np.zeros(0, np.int64)
    if table.larger:
        larger = np.flatnonzero(magnitudes > table.levels)
        symbols[larger] = 2 * table.levels + 1
    encoder.encode(groups.joined(symbols), groups.model)
    if len(larger):
        beyond = magnitudes[larger].astype(np.int32) - table.levels
        classes = (np.frexp(beyond.astype(np.float64))[1] - 1).astype(np.int32)
        rests = (beyond - (1 << classes) << 1 | (values[larger] < 0)).astype(np.int32)
        encoder.encode(classes, Uniform(CLASSES))
        for e in np.unique(classes):
            encoder.encode(rests[classes == e], Uniform(2 << int(e)))


def _decode_run(decoder: Any, values: npt.NDArray[np.int32], table: Table) -> None:
    """Fill `values`."""
    groups = Groups(table)
    decoded: npt.NDArray[np.int32] = decoder.decode(groups.model, -(-len(values) // groups.size))
    symbols = groups.parted(decoded, len(values))
    numbers = np.arange(table.symbols, dtype=np.int32)
    numbers = (numbers >> 1) ^ -(numbers & 1)
    numbers.take(symbols, out=values, mode="clip")
    if not table.larger:
        return
    larger = np.flatnonzero(symbols == table.symbols - 1)
    if len(larger):
        classes = decoder.decode(Uniform(CLASSES), len(larger))
        for e in np.unique(classes):
            mine = larger[classes == e]
            rests = decoder.decode(Uniform(2 << int(e)), len(mine))
            signs = 1 - 2 * (rests & 1)
            values[mine] = signs * ((rests >> 1) + (1 << int(e)) + table.levels)


def _histogram(magnitudes: Whole) -> npt.NDArray[np.int64]:
    """Return how many values have |d| = 0 … 63, and each class of |d| − 63, (64 + 24,) int64."""
    counts = np.zeros(MOST_LEVELS + 1 + CLASSES, np.int64)
    largest = int(magnitudes.max(initial=0))
    if largest >= LARGEST:
        raise CodecError(f"a difference of {largest} steps, and {LARGEST - 1} is the most")
    if largest > MOST_LEVELS:
        beyond = magnitudes[magnitudes > MOST_LEVELS].astype(np.float64) - MOST_LEVELS
        counts[MOST_LEVELS + 1 :] = np.bincount(np.frexp(beyond)[1] - 1, minlength=CLASSES)
        magnitudes = magnitudes[magnitudes <= MOST_LEVELS]
    if largest < 12:
        # numpy counts whole arrays of small numbers faster than it sorts them into bins.
        found = [np.count_nonzero(magnitudes == level) for level in range(1, largest + 1)]
        counts[1 : largest + 1] = found
        counts[0] = len(magnitudes) - sum(found)
    else:
        counts[: MOST_LEVELS + 1] = _counted(magnitudes)
    return counts


def _counted(magnitudes: Whole) -> npt.NDArray[np.int64]:
    """Return how many magnitudes are 0 … 63, of those that are all up to 63, (64,) int64."""
    if magnitudes.itemsize > 1 or len(magnitudes) < MANY:
        return np.bincount(magnitudes, minlength=MOST_LEVELS + 1)
    # Two bytes at a time are half as many numbers for numpy to widen and to count.
    even = len(magnitudes) & ~1
    pairs = np.bincount(magnitudes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    rest = np.bincount(magnitudes[even:], minlength=256)
    counts: npt.NDArray[np.int64] = pairs.sum(0) + pairs.sum(1) + rest
    return counts[: MOST_LEVELS + 1]


def _log2(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return log₂ to 0.01, and 0 for 0: of IEEE operations alone, since choices that hang on it are seen in bytes."""
    share, exponent = np.frexp(numbers)
    rest = 2 * share - 1
    return np.where(numbers > 0, exponent - 1 + rest + 0.343 * rest * (1 - rest), 0.0)


_UNIT = 1 << 10
_CLASS_BITS = round(_UNIT * math.log2(CLASSES))
_BEYOND = np.array(
    [
        [(level > levels) * (_CLASS_BITS + _UNIT * (level - levels).bit_length()) for level in range(MOST_LEVELS + 1)]
        + [_CLASS_BITS + _UNIT * (e + 1) for e in range(CLASSES)]
        for levels in range(MOST_LEVELS + 1)
    ]
)
"""1024ths of a bit of a larger value beside its symbol, (m, place in the histogram)."""


def _best(counts: npt.NDArray[np.int64]) -> tuple[float, int]:
    """Return about the fewest bits of values with these counts, table included, and the m of it."""
    total = float(counts.sum())
    if counts[0] == total:
        return 8.0, 0
    each = counts.astype(np.float64)
    most = int(np.flatnonzero(counts[: MOST_LEVELS + 1])[-1]) if counts[: MOST_LEVELS + 1].any() else 0
    inside = each[: most + 1]
    own = inside * _log2(inside)
    # Magnitudes have two signs, of a bit.
    bits = np.cumsum(np.where(np.arange(most + 1) > 0, inside, 0.0) - own)
    beyond = total - np.cumsum(inside)
    bits += total * _log2(np.array([total])) - beyond * _log2(beyond)
    bits += 8.0 * (np.arange(most + 1) + 2 + (beyond > 0))
    bits += (_BEYOND[: most + 1] @ counts) / _UNIT
    levels = int(bits.argmin())
    return float(bits[levels]), levels


def _runs(counts: Sequence[npt.NDArray[np.int64]], sizes: Sequence[int]) -> list[tuple[int, int, Table]]:
    """Return (tensors, values, table) of each run: a tensor joins the run before it where that saves bits."""
    runs: list[tuple[int, int, npt.NDArray[np.int64], float, int]] = []
    for mine, size in zip(counts, sizes, strict=True):
        bits, levels = _best(mine)
        if runs:
            tensors, values, theirs, before, _ = runs[-1]
            together = theirs + mine
            shared, common = _best(together)
            if shared + 8 * tensors <= before + bits:
                runs[-1] = (tensors + 1, values + size, together, shared + 8 * tensors, common)
                continue
        runs.append((1, size, mine, bits, levels))
    return [(tensors, values, _table_of(found, levels)) for tensors, values, found, _, levels in runs]


def _table_of(counts: npt.NDArray[np.int64], levels: int) -> Table:
    larger = int(counts[levels + 1 :].sum())
    if not levels and not larger:
        return ZEROS
    shares = counts[: levels + 1].astype(np.float64)
    shares[1:] /= 2
    if larger:
        shares = np.append(shares, float(larger))
    # The rarest one has the smallest weight, unless the commonest would have more than there is. Where values are not
    # nearly all zeros, smaller sums make larger groups, and cost less than a hundredth.
    scale = min(WEIGHTS[0] / shares[shares > 0].min(), WEIGHTS[-1] / shares.max())
    if shares[0] < NEARLY_ALL * counts.sum():
        scale = min(scale, FEW / float(counts.sum()))
    weights = np.searchsorted(_MIDDLES, shares * scale)
    return Table(levels, bool(larger), tuple(weights.tolist()))
