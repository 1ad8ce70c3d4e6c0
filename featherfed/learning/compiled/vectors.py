"""The innermost loops, whose sums stay in the processor's vector registers: written in LLVM's own words, by numba.

A compiler finds none of these by itself in a loop over three indices; matrix libraries write them in assembly. A block
has P rows of V vectors of L numbers, `LANES`, and P · V + V + 1 registers hold it with one row of its right factor:

    tile      out[p, :] += Σ_t left[p, t] · right[t, :]      the terms t in two nested loops
    dots      out[p, q] = Σ_i left[p, i] · right[q, i]       both as they lie in memory
    gather    sums[:] += Σ_e values[e] · x[places[e], :]     e over what is not zero
    scatter   x[places[e], :] += values[e] · weights[:]
    listing   writes such places and values                  of what is not zero, or not the background
    listed    out[r, :] += Σ_e values[e] · x[places[e], :]   e over what is not zero of each row r
    both      out[places[e], r] = weights[r, :] · x[places[e], :], and weights as out of `listed`
    largest   out[x, :] = max_k pixels[x, k, :]              k over a pool's window, x along a row

All arrays are flat; `…_at` is where something begins in one, in numbers, and widths are in vectors. Nothing is looked
at twice: bounds are the caller's, and so is what lies after the last number of a row that is no whole number of
vectors. A multiplication and its addition may be one instruction (`contract`), and are it where the processor has one;
no sum is taken in another order than is written here, and no NaN is thought away, as `fastmath` would allow.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from featherfed.compiling.emitter import INT32, INT64, LANES, NONE, VECTOR, Emitter, written

ROWS = 6 if LANES == 8 else 8
"""Rows of a block at most: AVX has 16 registers, AVX-512 and ARM 32."""
WIDTH = 2
"""Vectors of a tile's row at most."""
COLUMNS = 2 if LANES == 8 else 3
"""Right rows of a block of `dots` at most."""
CHUNK = 6
"""Vectors that `gather` and `scatter` take at most."""
LONG = 7 if LANES == 8 else 13
"""Vectors of a row that `listed` takes at most: two sums of each and one number more fit the registers."""
BOTH = 5 if LANES == 8 else 13
"""Vectors of a row that `both` takes at most, with two numbers more."""
APART = 32
"""Terms that `listed` sums by themselves: less is lost to rounding than in one sum of all."""


@written("x:e at:n", types.int32)
def get_place(emit: Emitter) -> Any:
    """Return `x[at]`."""
    return emit.number(emit["x"], emit["at"])


@written("x:e at:n value:n")
def put_place(emit: Emitter) -> None:
    """Set `x[at]`."""
    emit.builder.store(emit.builder.trunc(emit["value"], INT32), emit.at(emit["x"], emit["at"]))


@written("x:x at:n length:n background:f every:b end:n entries:e values:x", types.int64)
def listing(emit: Emitter) -> Any:
    """Write the numbers and values of what of x is not zero above a background, or of `every` one, from `end` on.

    Returns where the list ends. Up to `LANES` numbers behind it are written to.
    """
    builder = emit.builder
    numbers, bits = ir.VectorType(INT32, LANES), ir.IntType(LANES)
    background, every = emit.spread(emit["background"]), emit.spread(_is(builder, emit["every"]))
    begin = emit.at(emit["x"], emit["at"])
    end = cgutils.alloca_once_value(builder, emit["end"])
    lanes = ir.Constant(numbers, list(range(LANES)))

    def take(place: Any, found: Any, among: Any) -> None:
        above = builder.fsub(found, background)
        kept = builder.or_(builder.fcmp_unordered("!=", above, NONE), every)
        kept = kept if among is None else builder.and_(kept, among)
        at = builder.load(end)
        to = builder.bitcast(emit.at(emit["values"], at), VECTOR.as_pointer())
        builder.store(emit.packed(above, kept), to, align=4)
        which = builder.add(lanes, emit.spread(builder.trunc(place, INT32)))
        to = builder.bitcast(emit.at(emit["entries"], at), numbers.as_pointer())
        builder.store(emit.packed(which, kept), to, align=4)
        count = builder.ctpop(builder.bitcast(kept, bits))
        builder.store(builder.add(at, builder.zext(count, INT64)), end)

    whole = builder.sdiv(emit["length"], INT64(LANES))
    with cgutils.for_range(builder, whole) as vector:
        place = emit.times(vector.index, LANES)
        take(place, emit.load(emit.at(begin, place)), None)
    place = emit.times(whole, LANES)
    left = builder.sub(emit["length"], place)
    with builder.if_then(builder.icmp_signed(">", left, INT64(0))):
        among = emit.masked(left)
        take(place, emit.load_some(emit.at(begin, place), among), among)
    return builder.load(end)


@written(
    "rows:n width:n out:x out_at:n outs:p outs_at:n adds:b apart:b first:x first_at:n relu:b left:x left_at:n lefts:p"
    " lefts_at:n outer:n outer_step:n inner:n inner_step:n right:x right_at:n right_outer:n right_inner:n"
)
def tile(emit: Emitter) -> None:
    """Write `rows` rows of `width` numbers, at most `WIDTH` vectors: row p at `out[out_at + outs[outs_at + p]]`.

    It begins as what is there if it `adds`, else as the row at `first[first_at]`, which is added after the terms if
    these are summed `apart`, and ends in a ReLU if `relu`. Its factors are
    `left[left_at + lefts[lefts_at + p] + o · outer_step + i · inner_step]` for o < `outer` and i < `inner`; those
    of term (o, i) begin at `right[right_at + o · right_outer + i · right_inner]`.
    """
    builder = emit.builder
    mask = emit.masked(emit["width"])
    whole = builder.icmp_signed("==", emit["width"], INT64(WIDTH * LANES))
    for rows in emit.sizes("rows", ROWS):
        with builder.if_else(whole) as (all_of_them, some):
            with all_of_them:
                _tile(emit, rows, WIDTH, emit.load, emit.store)
            with some:
                _tile(
                    emit, rows, 1, lambda pointer, _: emit.load_some(pointer, mask),
                    lambda value, pointer, _: emit.store_some(value, pointer, mask),
                )  # fmt: skip


def _tile(emit: Emitter, rows: int, width: int, load: Callable[..., Any], store: Callable[..., None]) -> None:
    builder = emit.builder
    sums = emit.places(rows, width)
    ends = [
        emit.at(emit["out"], emit["out_at"], emit.number(emit["outs"], emit["outs_at"], row)) for row in range(rows)
    ]
    apart = _is(builder, emit["apart"])
    begins = [builder.select(_is(builder, emit["adds"]), end, emit.at(emit["first"], emit["first_at"])) for end in ends]
    for row, begin in zip(sums, begins, strict=True):
        for column, sum_ in enumerate(row):
            builder.store(builder.select(apart, NONE, load(begin, column)), sum_)
    lefts = [
        emit.at(emit["left"], emit["left_at"], emit.number(emit["lefts"], emit["lefts_at"], row)) for row in range(rows)
    ]
    with cgutils.for_range(builder, emit["outer"]) as over:
        pointers = [emit.at(left, builder.mul(over.index, emit["outer_step"])) for left in lefts]
        right = emit.at(emit["right"], emit["right_at"], builder.mul(over.index, emit["right_outer"]))
        with cgutils.for_range(builder, emit["inner"]) as term:
            factors_at = emit.at(right, builder.mul(term.index, emit["right_inner"]))
            factors = [load(factors_at, column) for column in range(width)]
            step = builder.mul(term.index, emit["inner_step"])
            for row, pointer in zip(sums, pointers, strict=True):
                number = emit.spread(emit.number(pointer, step))
                for sum_, factor in zip(row, factors, strict=True):
                    emit.add(sum_, number, factor)
    with builder.if_then(apart):
        for row, begin in zip(sums, begins, strict=True):
            for column, sum_ in enumerate(row):
                builder.store(builder.fadd(load(begin, column), builder.load(sum_)), sum_)
    with builder.if_then(_is(builder, emit["relu"])):
        for sum_ in (each for row in sums for each in row):
            builder.store(_rectified(builder, builder.load(sum_)), sum_)
    for row, end in zip(sums, ends, strict=True):
        for column, sum_ in enumerate(row):
            store(builder.load(sum_), end, column)


def _rectified(builder: Any, vector: Any) -> Any:
    """Return what a ReLU makes of it: NaN is not below zero, and stays."""
    return builder.select(builder.fcmp_ordered("<", vector, NONE), NONE, vector)


def _is(builder: Any, flag: Any) -> Any:
    return builder.icmp_unsigned("!=", flag, ir.Constant(flag.type, 0))


@written(
    "rows:n columns:n out:x out_at:n out_step:n left:x left_at:n left_step:n right:x right_at:n right_step:n length:n"
)
def dots(emit: Emitter) -> None:
    """Write `out[out_at + p · out_step + q]`: the products of `rows` left with `columns` right rows of `length`."""
    builder = emit.builder
    for rows in emit.sizes("rows", ROWS):
        for columns in emit.sizes("columns", COLUMNS):
            sums = emit.places(rows, columns)
            lefts, rights = (
                [emit.at(emit[side], emit[f"{side}_at"], emit.times(emit[f"{side}_step"], index)) for index in range(n)]
                for side, n in (("left", rows), ("right", columns))
            )
            whole = builder.sdiv(emit["length"], INT64(LANES))
            with cgutils.for_range(builder, whole) as term:
                place = emit.times(term.index, LANES)
                factors = [emit.load(emit.at(right, place)) for right in rights]
                for row, left in zip(sums, lefts, strict=True):
                    numbers = emit.load(emit.at(left, place))
                    for sum_, factor in zip(row, factors, strict=True):
                        emit.add(sum_, numbers, factor)
            totals = [
                [cgutils.alloca_once_value(builder, emit.total(builder.load(sum_))) for sum_ in row] for row in sums
            ]
            # What is left over is less than a vector.
            begin = emit.times(whole, LANES)
            with cgutils.for_range(builder, builder.sub(emit["length"], begin)) as term:
                place = builder.add(begin, term.index)
                singles = [emit.number(right, place) for right in rights]
                for row, left in zip(totals, lefts, strict=True):
                    number = emit.number(left, place)
                    for total, single in zip(row, singles, strict=True):
                        emit.add(total, number, single)
            for index, row in enumerate(totals):
                end = emit.at(emit["out"], emit["out_at"], emit.times(emit["out_step"], index))
                for column, total in enumerate(row):
                    builder.store(builder.load(total), emit.at(end, column))


@written("width:n lines:n sums:x sums_at:n sums_step:n x:x x_at:n x_step:n places:e values:x begin:n end:n")
def gather(emit: Emitter) -> None:
    """Add to `width` vectors of `sums` those at `x[x_at + places[e]]`, times `values[e]`, for begin ≤ e < end.

    So in each of so many lines, that many steps behind each other.
    """
    builder = emit.builder
    for width in emit.sizes("width", CHUNK):
        with cgutils.for_range(builder, emit["lines"]) as line:
            end = emit.at(emit["sums"], emit["sums_at"], builder.mul(line.index, emit["sums_step"]))
            x = emit.at(emit["x"], emit["x_at"], builder.mul(line.index, emit["x_step"]))
            (sums,) = emit.places(1, width)
            for column, sum_ in enumerate(sums):
                builder.store(emit.load(end, column), sum_)
            with cgutils.for_range(builder, builder.sub(emit["end"], emit["begin"])) as term:
                number, place = _entry(emit, term.index, x)
                for column, sum_ in enumerate(sums):
                    emit.add(sum_, number, emit.load(place, column))
            for column, sum_ in enumerate(sums):
                emit.store(builder.load(sum_), end, column)


@written("width:n lines:n x:x x_at:n x_step:n weights:x weights_at:n weights_step:n places:e values:x begin:n end:n")
def scatter(emit: Emitter) -> None:
    """Add `width` vectors of `weights`, times `values[e]`, to those at `x[x_at + places[e]]`, for begin ≤ e < end.

    So in each of so many lines, that many steps behind each other.
    """
    builder = emit.builder
    for width in emit.sizes("width", CHUNK):
        with cgutils.for_range(builder, emit["lines"]) as line:
            weights = emit.at(emit["weights"], emit["weights_at"], builder.mul(line.index, emit["weights_step"]))
            x = emit.at(emit["x"], emit["x_at"], builder.mul(line.index, emit["x_step"]))
            factors = [emit.load(weights, column) for column in range(width)]
            with cgutils.for_range(builder, builder.sub(emit["end"], emit["begin"])) as term:
                number, place = _entry(emit, term.index, x)
                for column, factor in enumerate(factors):
                    emit.store(emit.sum_with(emit.load(place, column), number, factor), place, column)


def _entry(emit: Emitter, index: Any, x: Any) -> tuple[Any, Any]:
    """Return the value of an entry, as a vector, and where its patch begins."""
    entry = emit.builder.add(emit["begin"], index)
    place = emit.builder.sext(emit.number(emit["places"], entry), INT64)
    return emit.spread(emit.number(emit["values"], entry)), emit.at(x, place)


@written(
    "rows:n width:n adds:b out:x out_at:n out_step:n first:x first_at:n x:x x_at:n x_step:n places:e values:x"
    " starts:p starts_at:n"
)
def listed(emit: Emitter) -> None:
    """Write `width` vectors of each row, `out_step` behind each other: row r is Σ_e values[e] · x[places[e] · x_step].

    Its e are `starts[starts_at + r]` ≤ e < `starts[starts_at + r + 1]`. It begins as what is there if it `adds`, and is
    not touched where its list is empty; else as the row at `first`. Terms are summed `APART`, so many at a time, and
    then added to it.
    """
    builder = emit.builder
    adds, apart = _is(builder, emit["adds"]), INT64(APART)
    source = emit.at(emit["x"], emit["x_at"])
    first = emit.at(emit["first"], emit["first_at"])
    for width in emit.sizes("width", LONG):
        with cgutils.for_range(builder, emit["rows"]) as row:
            begin = emit.number(emit["starts"], emit["starts_at"], row.index)
            terms = builder.sub(emit.number(emit["starts"], emit["starts_at"], row.index, 1), begin)
            empty = builder.and_(adds, builder.icmp_signed("==", terms, INT64(0)))
            with builder.if_then(builder.not_(empty)):
                end = emit.at(emit["out"], emit["out_at"], builder.mul(row.index, emit["out_step"]))
                totals, sums = emit.places(2, width)
                from_ = builder.select(adds, end, first)
                for column, total in enumerate(totals):
                    builder.store(emit.load(from_, column), total)
                blocks = builder.sdiv(builder.add(terms, INT64(APART - 1)), apart)
                with cgutils.for_range(builder, blocks) as block:
                    for sum_ in sums:
                        builder.store(NONE, sum_)
                    done = builder.mul(block.index, apart)
                    left = builder.sub(terms, done)
                    length = builder.select(builder.icmp_signed("<", left, apart), left, apart)
                    with cgutils.for_range(builder, length) as term:
                        entry = builder.add(builder.add(begin, done), term.index)
                        place = builder.sext(emit.number(emit["places"], entry), INT64)
                        factors = emit.at(source, builder.mul(place, emit["x_step"]))
                        number = emit.spread(emit.number(emit["values"], entry))
                        for column, sum_ in enumerate(sums):
                            emit.add(sum_, number, emit.load(factors, column))
                    for total, sum_ in zip(totals, sums, strict=True):
                        builder.store(builder.fadd(builder.load(total), builder.load(sum_)), total)
                for column, total in enumerate(totals):
                    emit.store(builder.load(total), end, column)


@written(
    "rows:n width:n adds:b out:x out_at:n out_step:n weights:x weights_at:n weights_step:n x:x x_at:n x_step:n"
    " places:e values:x starts:p starts_at:n"
)
def both(emit: Emitter) -> None:
    """Write `out[out_at + places[e] · out_step + r]`, the product of row r with x[places[e] · x_step]; step the row.

    For each e of each row's list, as `listed` has them; rows are `width` vectors of `weights`, and what `listed` would
    add is added to them. Products are added to what is there if it `adds`.
    """
    builder = emit.builder
    adds = _is(builder, emit["adds"])
    source, products = emit.at(emit["x"], emit["x_at"]), emit.at(emit["out"], emit["out_at"])
    for width in emit.sizes("width", BOTH):
        with cgutils.for_range(builder, emit["rows"]) as row:
            begin = emit.number(emit["starts"], emit["starts_at"], row.index)
            terms = builder.sub(emit.number(emit["starts"], emit["starts_at"], row.index, 1), begin)
            with builder.if_then(builder.icmp_signed("!=", terms, INT64(0))):
                at = emit.at(emit["weights"], emit["weights_at"], builder.mul(row.index, emit["weights_step"]))
                weights = [emit.load(at, column) for column in range(width)]
                (sums,) = emit.places(1, width)
                with cgutils.for_range(builder, terms) as term:
                    entry = builder.add(begin, term.index)
                    place = builder.sext(emit.number(emit["places"], entry), INT64)
                    factors = emit.at(source, builder.mul(place, emit["x_step"]))
                    number = emit.spread(emit.number(emit["values"], entry))
                    parts: list[Any] = [NONE, NONE]
                    for column, (sum_, weight) in enumerate(zip(sums, weights, strict=True)):
                        factor = emit.load(factors, column)
                        emit.add(sum_, number, factor)
                        parts[column % 2] = emit.sum_with(parts[column % 2], weight, factor)
                    total = emit.total(builder.fadd(*parts))
                    to = emit.at(products, builder.mul(place, emit["out_step"]), row.index)
                    there = builder.select(adds, builder.load(to), ir.Constant(ir.FloatType(), 0.0))
                    builder.store(builder.fadd(there, total), to)
                for column, (sum_, weight) in enumerate(zip(sums, weights, strict=True)):
                    emit.store(builder.fadd(weight, builder.load(sum_)), at, column)


@written("outputs:n vectors:n side:n relu:b x:x x_at:n x_row:n out:x out_at:n chosen:e chosen_at:n down:n right:n")
def largest(emit: Emitter) -> None:
    """Write the largest of each window of `side` × `side` pixels, for so many windows in a row, and where it is.

    As torch does: the first of equals, and NaN above all; then a ReLU if `relu`. One pixel down is a move by `down`.
    """
    builder, numbers = emit.builder, ir.VectorType(INT32, LANES)
    pixel = emit.times(emit["vectors"], LANES)
    best, best_at = cgutils.alloca_once(builder, VECTOR), cgutils.alloca_once(builder, numbers)
    with cgutils.for_range(builder, emit["outputs"]) as output:
        window = emit.at(emit["x"], emit["x_at"], builder.mul(builder.mul(output.index, emit["side"]), pixel))
        with cgutils.for_range(builder, emit["vectors"]) as vector:
            channels = emit.times(vector.index, LANES)
            builder.store(emit.load(emit.at(window, channels)), best)
            builder.store(ir.Constant(numbers, [0] * LANES), best_at)
            with cgutils.for_range(builder, emit["side"]) as down:
                line = emit.at(window, channels, builder.mul(down.index, emit["x_row"]))
                place = builder.mul(down.index, emit["down"])
                with cgutils.for_range(builder, emit["side"]) as right:
                    found = emit.load(emit.at(line, builder.mul(right.index, pixel)))
                    more = builder.or_(
                        builder.fcmp_ordered(">", found, builder.load(best)),
                        builder.fcmp_unordered("uno", found, found),
                    )
                    moved = builder.add(place, builder.mul(right.index, emit["right"]))
                    which = emit.spread(builder.trunc(moved, INT32))
                    builder.store(builder.select(more, found, builder.load(best)), best)
                    builder.store(builder.select(more, which, builder.load(best_at)), best_at)
            at = builder.add(builder.mul(output.index, pixel), channels)
            value = builder.load(best)
            rectified = builder.select(_is(builder, emit["relu"]), _rectified(builder, value), value)
            emit.store(rectified, emit.at(emit["out"], emit["out_at"], at))
            place = builder.bitcast(emit.at(emit["chosen"], emit["chosen_at"], at), numbers.as_pointer())
            builder.store(builder.load(best_at), place, align=4)
