"""A span of many updates from the bytes of their payloads into the sum, compiled (`rows`)."""

from typing import Any

from featherfed.codec.compiled.rotation import (
    flipped,
    overlap_back,
    products,
    root,
    scaled,
    signs_of_overlap,
)
from featherfed.codec.compiled.vectors import add, expand, get_byte, put_byte
from featherfed.compiling.emitter import compiled, entered, get, put


@compiled
def _code(payloads: Any, at: Any, number: Any, width: Any) -> Any:
    """Return a code of `width` bits, at most 8, of those that begin at byte `at`."""
    if width == 8:
        return get_byte(payloads, at + number)
    first = number * width
    byte, shift = at + (first >> 3), 16 - width - (first & 7)
    word = get_byte(payloads, byte) << 8
    if shift < 8:
        word |= get_byte(payloads, byte + 1)
    return word >> shift & ((1 << width) - 1)


@compiled
def _expand(
    payloads: Any, at: Any, width: Any, each: Any, table: Any, table_at: Any, first: Any, count: Any, codes: Any,
    x: Any, to: Any,
) -> None:  # fmt: skip
    """Write the `count` numbers from `first` on of codes of `width` bits for `each` numbers, which begin at byte `at`.

    Up to `each` more are written behind them, and where `first` lies in the midst of a code, moved.
    """
    begin = first // each
    some = (first + count + each - 1) // each - begin
    for number in range(some):
        put_byte(codes, number, _code(payloads, at, begin + number, width))
    expand(each, table, table_at, codes, 0, some, x, to)
    beyond = first - begin * each
    if beyond:
        for place in range(to, to + count):
            put(x, place, get(x, place + beyond))


@entered
def add_values(total: Any, values: Any, weight: Any, rounder: Any) -> None:
    """Add values times their weight, rounded by what is added to them, to whole numbers."""
    add(total, 0, values, 0, len(values), weight, rounder)


@entered
def add_span(
    total: Any, payloads: Any, row_bytes: Any, at: Any, width: Any, each: Any, begun: Any, table: Any,
    numbers: Any, drawn: Any, weights: Any, rounder: Any, first: Any, end: Any, bits: Any, main: Any,
    rotates: Any, x: Any, codes: Any,
) -> None:  # fmt: skip
    """Add the span from `first` to before `end` of a part, of all rows, to the whole numbers of that part.

    Codes of `width` bits for `each` values begin at byte `at` of each row of `payloads`; `table` has what they stand
    for, and behind that their products with the matrix of order 2^begun, which are taken where begun > 0. A row has its
    `numbers`, (rows, blocks of 8192 of the part), its signs, (rows, bytes), and its weight, in units of what is added.
    Blocks of 2^bits end at `main`.
    """
    rows, order = len(weights), 1 << bits
    blocks, drawn_bytes = len(numbers) // rows, len(drawn) // rows
    table_at = len(table) // 2 if begun else 0
    begin = first
    while begin < end:
        # The last whole block and what is behind it go together where they are mixed.
        is_mixed = rotates and begin + order == main and end > main
        count = end - begin if is_mixed else min(order, end - begin)
        for row in range(rows):
            codes_at, signs_at = row * row_bytes + at, row * drawn_bytes
            number = get(numbers, row * blocks + (begin >> 13))
            if rotates:
                _expand(payloads, codes_at, width, each, table, table_at, begin, order, codes, x, 0)
                products(x, 0, bits, begun)
                flipped(x, 0, x, 0, order, number * root(bits), drawn, signs_at + (begin >> 3))
            else:
                _expand(payloads, codes_at, width, each, table, 0, begin, count, codes, x, 0)
                scaled(x, 0, count, number)
            if is_mixed:
                _expand(payloads, codes_at, width, each, table, 0, main, count - order, codes, x, order)
                scaled(x, order, count - order, get(numbers, row * blocks + blocks - 1))
                overlap_back(x, count - order, bits, drawn, signs_at + signs_of_overlap(main))
            add(total, begin, x, 0, count, weights[row], rounder)
        begin += count
