"""What lies where in a payload: the one description that encoding, decoding, sums and sizes all go by.

::

    part 0          part 1                                part 2
    ├─ exact ─┤     ├─ positions ─┼─ header ─┼─ symbols ─┤   …

A part is a tensor's, as a rule (`space.Part`). Small ones are float32 as they are. Of the others come the positions of
the values that are sent, where they travel; the quantizer's numbers; and its symbols, where it makes any.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from featherfed.codec.space import Part
from featherfed.codec.stage import Coder, Quantizer, Sparse


class Kind(enum.Enum):
    """What a field holds."""

    EXACT = "exact"
    POSITIONS = "positions"
    HEADER = "header"
    SYMBOLS = "symbols"


@dataclass(frozen=True, slots=True)
class Field:
    """A run of bytes: `count` numbers, positions, bytes of a header, or symbols.

    It has at most `most_bytes`, and exactly so many where it is `fixed`; `theory_bytes` is its size by formula.
    """

    kind: Kind
    count: int
    most_bytes: int
    theory_bytes: float
    fixed: bool = True


@dataclass(frozen=True, slots=True)
class PartFormat:
    """Part `index`, of `size` coordinates from `start` on, of which `kept` are sent; its fields in their order."""

    index: int
    start: int
    size: int
    kept: int
    exact: bool
    fields: tuple[Field, ...]


def formats(parts: tuple[Part, ...], sparse: Sparse | None, quantizer: Quantizer, coder: Coder) -> Iterator[PartFormat]:
    """Yield the format of each part, in their order."""
    start = 0
    for index, part in enumerate(parts):
        if part.exact:
            kept, fields = part.size, [Field(Kind.EXACT, part.size, 4 * part.size, 4 * part.size)]
        else:
            kept = sparse.kept(part.size) if sparse else part.size
            fields = [*_fields(part.size, kept, sparse, quantizer, coder)]
        yield PartFormat(index, start, part.size, kept, part.exact, tuple(fields))
        start += part.size


def _fields(size: int, kept: int, sparse: Sparse | None, quantizer: Quantizer, coder: Coder) -> Iterator[Field]:
    if sparse and sparse.sends_positions:
        most = coder.max_positions_bytes(size, kept)
        yield Field(Kind.POSITIONS, kept, most, sparse.positions_bits(size) / 8, fixed=False)
    header = quantizer.header_bytes(kept)
    yield Field(Kind.HEADER, header, header, header)
    if quantizer.symbol_bits:
        symbols, bits = quantizer.symbols(kept), quantizer.symbol_bits
        yield Field(Kind.SYMBOLS, symbols, coder.max_bytes(symbols, bits), symbols * bits / 8, coder.fixed_size)
