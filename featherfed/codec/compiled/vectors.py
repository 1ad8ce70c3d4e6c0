"""The innermost loops of the codecs, in LLVM's own words: what a compiler does not find in a loop over indices.

    within     v ← H v                      over the places in a vector, of each vector
    across     v_r ← Σ_s H(r, s) v_s        over up to 2^MOST_BITS vectors that lie `step` apart
    flip       x_i ← ± (x_i + 0) · factor   by drawn signs, the highest bit of a byte first
    expand     x ← table[code]              rows of one width, of bytes
    add        Σ_i ← Σ_i + round(x_i · w)   as 64-bit whole numbers (`exact_sum`)
    magnitude  the largest |x_i|, as the bits of a float32

All is exact or one operation of IEEE 754; a product and its sum become one instruction where the product is exact.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from featherfed.compiling.emitter import INT32, INT64, LANES, VECTOR, Emitter, written

MOST_BITS = 3
"""Eight vectors are in registers at once: AVX has 16. Sixteen, where there are 32, gain little."""
_INT8 = ir.IntType(8)
_WHOLE = ir.VectorType(INT32, LANES)
_WIDE, _WIDE_WHOLE = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(INT64, LANES)
_GROUP = max(LANES, 8)
"""Signs that are read at once."""


@written("x:x at:n vectors:n begun:n")
def within(emit: Emitter) -> None:
    """Multiply each of so many vectors by the matrix of their length; that of order `begun` they were multiplied by."""
    builder = emit.builder
    place = cgutils.alloca_once(builder, VECTOR)
    with cgutils.for_range(builder, emit["vectors"]) as vector:
        pointer = emit.at(emit["x"], emit["at"], emit.times(vector.index, LANES))
        builder.store(emit.load(pointer), place)
        width = 1
        while width < LANES:
            with builder.if_then(builder.icmp_signed("<=", emit["begun"], INT64(width))):
                value = builder.load(place)
                order = [lane ^ width for lane in range(LANES)]
                other = builder.shuffle_vector(value, value, ir.Constant(_WHOLE, order))
                signs = ir.Constant(VECTOR, [-1.0 if lane & width else 1.0 for lane in range(LANES)])
                # Of ±1 the product is exact.
                builder.store(emit.sum_with(other, value, signs), place)
            width *= 2
        emit.store(builder.load(place), pointer)


@written("bits:n x:x at:n step:n")
def across(emit: Emitter) -> None:
    """Multiply 2^bits runs of `step` numbers, one behind the other, by the matrix of order 2^bits, number by number."""
    builder = emit.builder
    vectors = builder.udiv(emit["step"], INT64(LANES))
    for bits in emit.sizes("bits", MOST_BITS):
        with cgutils.for_range(builder, vectors) as vector:
            first = emit.at(emit["x"], emit["at"], emit.times(vector.index, LANES))
            pointers = [emit.at(first, emit.times(emit["step"], run)) for run in range(1 << bits)]
            values = [emit.load(pointer) for pointer in pointers]
            for bit in range(bits):
                values = [
                    builder.fsub(values[run ^ 1 << bit], value)
                    if run >> bit & 1
                    else builder.fadd(value, values[run ^ 1 << bit])
                    for run, value in enumerate(values)
                ]
            for value, pointer in zip(values, pointers, strict=True):
                emit.store(value, pointer)


@written("out:x out_at:n x:x at:n count:n factor:f signs:u signs_at:n")
def flip(emit: Emitter) -> None:
    """Write (x + 0) · factor, times the drawn signs from byte `signs_at` on: `count` numbers, whole groups of signs."""
    builder = emit.builder
    factor = emit.spread(emit["factor"])
    nothing = ir.Constant(VECTOR, [0.0] * LANES)
    with cgutils.for_range(builder, builder.udiv(emit["count"], INT64(_GROUP))) as group:
        begin = emit.times(group.index, _GROUP)
        read = emit.at(emit["signs"], emit["signs_at"], emit.times(group.index, _GROUP // 8))
        word = ir.IntType(_GROUP)
        drawn = builder.load(builder.bitcast(read, word.as_pointer()), align=1)
        spread = emit.spread(builder.zext(drawn, INT32) if _GROUP < 32 else drawn)
        for vector in range(_GROUP // LANES):
            places = [lane + vector * LANES for lane in range(LANES)]
            # In a byte the first sign is the highest bit.
            masks = ir.Constant(_WHOLE, [1 << (place // 8 * 8 + 7 - place % 8) for place in places])
            is_minus = builder.icmp_unsigned("!=", builder.and_(spread, masks), ir.Constant(_WHOLE, [0] * LANES))
            minus = ir.Constant(_WHOLE, [-(1 << 31)] * LANES)
            bits = builder.select(is_minus, minus, ir.Constant(_WHOLE, [0] * LANES))
            value = emit.load(emit.at(emit["x"], emit["at"], begin), vector)
            # Without the flag nobody takes this for a no-op: it makes +0 of −0.
            value = builder.fmul(builder.fadd(value, nothing), factor)
            value = builder.bitcast(builder.xor(builder.bitcast(value, _WHOLE), bits), VECTOR)
            emit.store(value, emit.at(emit["out"], emit["out_at"], begin), vector)


@written("each:n table:x table_at:n codes:u codes_at:n count:n x:x at:n")
def expand(emit: Emitter) -> None:
    """Write the row of `each` numbers, a power of two, that `table` has for each of so many bytes."""
    builder = emit.builder

    def rows(code: Any) -> tuple[Any, Any]:
        number = builder.zext(emit.number(emit["codes"], emit["codes_at"], code), INT64)
        row = emit.at(emit["table"], emit["table_at"], builder.mul(number, emit["each"]))
        return row, emit.at(emit["x"], emit["at"], builder.mul(code, emit["each"]))

    each = 1
    while each < LANES:
        with (
            builder.if_then(builder.icmp_signed("==", emit["each"], INT64(each))),
            cgutils.for_range(builder, emit["count"]) as code,
        ):
            row, out = (
                builder.bitcast(at, ir.VectorType(ir.FloatType(), each).as_pointer()) for at in rows(code.index)
            )
            builder.store(builder.load(row, align=4), out, align=4)
        each *= 2
    with (
        builder.if_then(builder.icmp_signed(">=", emit["each"], INT64(LANES))),
        cgutils.for_range(builder, emit["count"]) as code,
    ):
        row, out = rows(code.index)
        with cgutils.for_range(builder, builder.udiv(emit["each"], INT64(LANES))) as vector:
            place = emit.times(vector.index, LANES)
            emit.store(emit.load(emit.at(row, place)), emit.at(out, place))


@written("total:p total_at:n x:x at:n count:n weight:d rounder:d")
def add(emit: Emitter) -> None:
    """Add the bits of x · weight + rounder, as float64, to whole numbers: `count` of them."""
    builder = emit.builder
    double = ir.DoubleType()
    whole = builder.udiv(emit["count"], INT64(LANES))

    def spread(number: Any) -> Any:
        one = builder.insert_element(ir.Constant(_WIDE, ir.Undefined), number, INT32(0))
        return builder.shuffle_vector(one, one, ir.Constant(_WHOLE, [0] * LANES))

    weight, rounder = spread(emit["weight"]), spread(emit["rounder"])
    with cgutils.for_range(builder, whole) as vector:
        place = emit.times(vector.index, LANES)
        value = builder.fpext(emit.load(emit.at(emit["x"], emit["at"], place)), _WIDE)
        # Two roundings, as numpy has them.
        value = builder.fadd(builder.fmul(value, weight), rounder)
        out = builder.bitcast(emit.at(emit["total"], emit["total_at"], place), _WIDE_WHOLE.as_pointer())
        number = builder.add(builder.load(out, align=8), builder.bitcast(value, _WIDE_WHOLE))
        builder.store(number, out, align=8)
    begin = emit.times(whole, LANES)
    with cgutils.for_range(builder, builder.sub(emit["count"], begin)) as rest:
        place = builder.add(begin, rest.index)
        value = builder.fpext(emit.number(emit["x"], emit["at"], place), double)
        value = builder.fadd(builder.fmul(value, emit["weight"]), emit["rounder"])
        out = emit.at(emit["total"], emit["total_at"], place)
        builder.store(builder.add(builder.load(out), builder.bitcast(value, INT64)), out)


@written("x:x at:n count:n", types.int64)
def magnitude(emit: Emitter) -> Any:
    """Return the bits of the largest |x|, as a float32's: 0x7F800000 and more where one is infinite or NaN."""
    builder = emit.builder
    most = cgutils.alloca_once(builder, _WHOLE)
    builder.store(ir.Constant(_WHOLE, [0] * LANES), most)
    found = cgutils.alloca_once_value(builder, INT32(0))
    whole = builder.udiv(emit["count"], INT64(LANES))
    with cgutils.for_range(builder, whole) as vector:
        value = emit.load(emit.at(emit["x"], emit["at"], emit.times(vector.index, LANES)))
        bits = builder.and_(builder.bitcast(value, _WHOLE), ir.Constant(_WHOLE, [(1 << 31) - 1] * LANES))
        known = builder.load(most)
        builder.store(builder.select(builder.icmp_signed(">", bits, known), bits, known), most)

    def take(bits: Any) -> None:
        known = builder.load(found)
        builder.store(builder.select(builder.icmp_signed(">", bits, known), bits, known), found)

    for lane in range(LANES):
        take(builder.extract_element(builder.load(most), INT32(lane)))
    begin = emit.times(whole, LANES)
    with cgutils.for_range(builder, builder.sub(emit["count"], begin)) as rest:
        value = emit.number(emit["x"], emit["at"], builder.add(begin, rest.index))
        take(builder.and_(builder.bitcast(value, INT32), INT32((1 << 31) - 1)))
    return builder.zext(builder.load(found), INT64)


@written("x:x at:n count:n", types.int64)
def first_largest(emit: Emitter) -> Any:
    """Return the place of the largest of so many numbers, a power of two of them, the first of equals; none is NaN."""
    builder = emit.builder
    best, best_at = cgutils.alloca_once(builder, ir.FloatType()), cgutils.alloca_once_value(builder, INT32(0))
    builder.store(emit.number(emit["x"], emit["at"]), best)
    with builder.if_else(builder.icmp_signed("<", emit["count"], INT64(LANES))) as (few, many):
        with few, cgutils.for_range(builder, emit["count"]) as each:
            _larger(emit, best, best_at, emit.number(emit["x"], emit["at"], each.index), each.index)
        with many:
            most, most_at = cgutils.alloca_once(builder, VECTOR), cgutils.alloca_once(builder, _WHOLE)
            lanes = ir.Constant(_WHOLE, list(range(LANES)))
            builder.store(emit.load(emit.at(emit["x"], emit["at"])), most)
            builder.store(lanes, most_at)
            with cgutils.for_range(builder, builder.udiv(emit["count"], INT64(LANES))) as vector:
                place = emit.times(vector.index, LANES)
                found = emit.load(emit.at(emit["x"], emit["at"], place))
                found_at = builder.add(lanes, emit.spread(builder.trunc(place, INT32)))
                is_larger = builder.fcmp_ordered(">", found, builder.load(most))
                builder.store(builder.select(is_larger, found, builder.load(most)), most)
                builder.store(builder.select(is_larger, found_at, builder.load(most_at)), most_at)
            value, value_at, width = builder.load(most), builder.load(most_at), LANES
            while width > 1:
                width //= 2
                order = ir.Constant(_WHOLE, [lane ^ width for lane in range(LANES)])
                other, other_at = (builder.shuffle_vector(each, each, order) for each in (value, value_at))
                is_better = builder.or_(
                    builder.fcmp_ordered(">", other, value),
                    builder.and_(
                        builder.fcmp_ordered("==", other, value), builder.icmp_signed("<", other_at, value_at)
                    ),
                )
                value, value_at = builder.select(is_better, other, value), builder.select(is_better, other_at, value_at)
            builder.store(builder.extract_element(value_at, INT32(0)), best_at)
    return builder.sext(builder.load(best_at), INT64)


def _larger(emit: Emitter, best: Any, best_at: Any, found: Any, found_at: Any) -> None:
    """Keep a number and its place if it is larger."""
    builder = emit.builder
    is_larger = builder.fcmp_ordered(">", found, builder.load(best))
    builder.store(builder.select(is_larger, builder.trunc(found_at, INT32), builder.load(best_at)), best_at)
    builder.store(builder.select(is_larger, found, builder.load(best)), best)


@written("bits:n", types.float32)
def from_bits(emit: Emitter) -> Any:
    """Return the float32 of so many bits."""
    return emit.builder.bitcast(emit.builder.trunc(emit["bits"], INT32), ir.FloatType())


@written("x:u at:n", types.int64)
def get_byte(emit: Emitter) -> Any:
    """Return `x[at]`."""
    return emit.builder.zext(emit.number(emit["x"], emit["at"]), INT64)


@written("x:u at:n value:n")
def put_byte(emit: Emitter) -> None:
    """Set `x[at]`."""
    emit.builder.store(emit.builder.trunc(emit["value"], _INT8), emit.at(emit["x"], emit["at"]))
