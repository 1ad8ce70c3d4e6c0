"""The innermost loops, whose sums stay in the processor's vector registers: written in LLVM's own words, by numba.

A compiler finds none of these by itself in a loop over three indices; matrix libraries write them in assembly. A block
has P rows of V vectors of L numbers, `LANES`, and P · V + V + 1 registers hold it with one row of its right factor:

    tile      out[p, :] += Σ_t left[p, t] · right[t, :]      the terms t in two nested loops
    dots      out[p, q] = Σ_i left[p, i] · right[q, i]       both as they lie in memory
    gather    sums[:] += Σ_e values[e] · x[places[e], :]     e over what is not zero
    scatter   x[places[e], :] += values[e] · weights[:]
    largest   out[x, :] = max_k pixels[x, k, :]              k over a pool's window, x along a row

and `get` and `put` are a number of an array, without the look at its sign that numba takes.

All arrays are flat; `…_at` is where something begins in one, in numbers, and widths are in vectors. Nothing is looked
at twice: bounds are the caller's, and so is what lies after the last number of a row that is no whole number of
vectors. A multiplication and its addition may be one instruction (`contract`), and are it where the processor has one;
no sum is taken in another order than is written here, and no NaN is thought away, as `fastmath` would allow.
"""

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, Signature
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_features = llvm.get_host_cpu_features()
LANES = 16 if _features.get("avx512f") else 8 if _features.get("avx") else 4
"""Numbers of 32 bits in a vector."""
ROWS = 6 if LANES == 8 else 8
"""Rows of a block at most: AVX has 16 registers, AVX-512 and ARM 32."""
WIDTH = 2
"""Vectors of a tile's row at most."""
COLUMNS = 2 if LANES == 8 else 3
"""Right rows of a block of `dots` at most."""
CHUNK = 6
"""Vectors that `gather` and `scatter` take at most."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_CONTRACT = ("contract",)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


class _Emitter:
    """Writes instructions. A place in an array is an int64, and `self[...]` are the call's arguments by name."""

    def __init__(self, context: Any, builder: Any, names: Sequence[str], kinds: Any, arguments: Sequence[Any]) -> None:
        self.builder = builder
        self._arguments = {
            name: context.make_array(kind)(context, builder, value=value).data
            if isinstance(kind, types.Array)
            else value
            for name, kind, value in zip(names, kinds, arguments, strict=True)
        }

    def __getitem__(self, name: str) -> Any:
        return self._arguments[name]

    def times(self, number: Any, factor: int) -> Any:
        return self.builder.mul(number, _INT64(factor))

    def at(self, pointer: Any, *places: Any) -> Any:
        """Return the pointer moved by numbers."""
        for place in places:
            pointer = self.builder.gep(pointer, [_INT64(place) if isinstance(place, int) else place])
        return pointer

    def number(self, pointer: Any, *places: Any) -> Any:
        return self.builder.load(self.at(pointer, *places))

    def load(self, pointer: Any, vector: int = 0) -> Any:
        pointer = self.builder.bitcast(self.at(pointer, vector * LANES), _VECTOR.as_pointer())
        return self.builder.load(pointer, align=4)

    def store(self, value: Any, pointer: Any, vector: int = 0) -> None:
        pointer = self.builder.bitcast(self.at(pointer, vector * LANES), _VECTOR.as_pointer())
        self.builder.store(value, pointer, align=4)

    def spread(self, number: Any) -> Any:
        """Return a vector of one number."""
        nothing = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
        one = self.builder.insert_element(nothing, number, _INT32(0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES))

    def sum_with(self, sum_: Any, left: Any, right: Any) -> Any:
        """Return a sum with one product more."""
        return self.builder.fadd(sum_, self.builder.fmul(left, right, flags=_CONTRACT), flags=_CONTRACT)

    def add(self, place: Any, left: Any, right: Any) -> None:
        """Add a product to the sum at a place of `places`."""
        self.builder.store(self.sum_with(self.builder.load(place), left, right), place)

    def places(self, rows: int, columns: int) -> list[list[Any]]:
        """Return places for sums, zero at first, which LLVM keeps in registers."""
        made = [[cgutils.alloca_once(self.builder, _VECTOR) for _ in range(columns)] for _ in range(rows)]
        for place in (each for row in made for each in row):
            self.builder.store(_ZERO, place)
        return made

    def masked(self, count: Any) -> Any:
        """Return which numbers of a vector are among the first so many."""
        numbers = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES)))
        return self.builder.icmp_signed("<", numbers, self.spread(self.builder.trunc(count, _INT32)))

    def load_some(self, pointer: Any, mask: Any) -> Any:
        """Return a vector of what the mask says, and zeros."""
        pointer = self.builder.bitcast(pointer, _VECTOR.as_pointer())
        function = self._masked("load", _VECTOR, [pointer.type, _INT32, mask.type, _VECTOR])
        return self.builder.call(function, [pointer, _INT32(4), mask, _ZERO])

    def store_some(self, value: Any, pointer: Any, mask: Any) -> None:
        pointer = self.builder.bitcast(pointer, _VECTOR.as_pointer())
        function = self._masked("store", ir.VoidType(), [_VECTOR, pointer.type, _INT32, mask.type])
        self.builder.call(function, [value, pointer, _INT32(4), mask])

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{what}.v{LANES}f32.p0"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def total(self, vector: Any) -> Any:
        """Return the sum of a vector's numbers, by halves."""
        width = LANES
        while width > 1:
            width //= 2
            order = [lane + width if lane < width else 0 for lane in range(LANES)]
            moved = self.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT32, LANES), order))
            vector = self.builder.fadd(vector, moved)
        return self.builder.extract_element(vector, _INT32(0))

    def sizes(self, name: str, most: int) -> Iterator[int]:
        """Write what follows for each size that an argument may have, to be taken where it has it."""
        for size in range(1, most + 1):
            with self.builder.if_then(self.builder.icmp_signed("==", self[name], _INT64(size))):
                yield size


_KINDS = {
    "x": types.float32[::1],
    "n": types.int64,
    "p": types.int64[::1],
    "e": types.int32[::1],
    "b": types.boolean,
    "f": types.float32,
}
"""Numbers, an int64, places, places of entries, and a truth."""


def _intrinsic(arguments: str, result: Any = types.void) -> Callable[[Callable[[_Emitter], Any]], Any]:
    """Make a function that numba calls of one that writes its instructions; `arguments` are `name:kind`, by spaces."""
    names, letters = zip(*(each.split(":") for each in arguments.split()), strict=True)
    kinds = [_KINDS[letter] for letter in letters]

    def decorate(write: Callable[[_Emitter], Any]) -> Any:
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            # Its caller is compiled once, and not again into each of its own.
            builder.function.attributes.add("noinline")
            result = write(_Emitter(context, builder, names, signature.args, given))
            return context.get_dummy_value() if result is None else result

        def typed(typing: Any, *given: Any) -> Any:
            return result(*kinds), generate

        typed.__name__, typed.__doc__ = write.__name__, write.__doc__
        # numba counts a call's arguments by it.
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("typing", *names)]
        typed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return intrinsic(typed)

    return decorate


@_intrinsic("x:x at:n", types.float32)
def get(emit: _Emitter) -> Any:
    """Return `x[at]`."""
    return emit.number(emit["x"], emit["at"])


@_intrinsic("x:x at:n value:f")
def put(emit: _Emitter) -> None:
    """Set `x[at]`."""
    emit.builder.store(emit["value"], emit.at(emit["x"], emit["at"]))


@_intrinsic("x:e at:n", types.int32)
def get_place(emit: _Emitter) -> Any:
    """Return `x[at]`."""
    return emit.number(emit["x"], emit["at"])


@_intrinsic("x:e at:n value:n")
def put_place(emit: _Emitter) -> None:
    """Set `x[at]`."""
    emit.builder.store(emit.builder.trunc(emit["value"], _INT32), emit.at(emit["x"], emit["at"]))


@_intrinsic(
    "rows:n width:n out:x out_at:n outs:p outs_at:n adds:b first:x first_at:n relu:b left:x left_at:n lefts:p"
    " lefts_at:n outer:n outer_step:n inner:n inner_step:n right:x right_at:n right_outer:n right_inner:n"
)
def tile(emit: _Emitter) -> None:
    """Write `rows` rows of `width` numbers, at most `WIDTH` vectors: row p at `out[out_at + outs[outs_at + p]]`.

    It begins as what is there if it `adds`, else as the row at `first[first_at]`, and ends in a ReLU if `relu`. Its
    factors are `left[left_at + lefts[lefts_at + p] + o · outer_step + i · inner_step]` for o < `outer` and i < `inner`;
    those of term (o, i) begin at `right[right_at + o · right_outer + i · right_inner]`.
    """
    builder = emit.builder
    mask = emit.masked(emit["width"])
    whole = builder.icmp_signed("==", emit["width"], _INT64(WIDTH * LANES))
    for rows in emit.sizes("rows", ROWS):
        with builder.if_else(whole) as (all_of_them, some):
            with all_of_them:
                _tile(emit, rows, WIDTH, emit.load, emit.store)
            with some:
                _tile(
                    emit, rows, 1, lambda pointer, _: emit.load_some(pointer, mask),
                    lambda value, pointer, _: emit.store_some(value, pointer, mask),
                )  # fmt: skip


def _tile(emit: _Emitter, rows: int, width: int, load: Callable[..., Any], store: Callable[..., None]) -> None:
    builder = emit.builder
    sums = emit.places(rows, width)
    ends = [
        emit.at(emit["out"], emit["out_at"], emit.number(emit["outs"], emit["outs_at"], row)) for row in range(rows)
    ]
    for row, end in zip(sums, ends, strict=True):
        begin = builder.select(_is(builder, emit["adds"]), end, emit.at(emit["first"], emit["first_at"]))
        for column, sum_ in enumerate(row):
            builder.store(load(begin, column), sum_)
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
    with builder.if_then(_is(builder, emit["relu"])):
        for sum_ in (each for row in sums for each in row):
            builder.store(_rectified(builder, builder.load(sum_)), sum_)
    for row, end in zip(sums, ends, strict=True):
        for column, sum_ in enumerate(row):
            store(builder.load(sum_), end, column)


def _rectified(builder: Any, vector: Any) -> Any:
    """Return what a ReLU makes of it: NaN is not below zero, and stays."""
    return builder.select(builder.fcmp_ordered("<", vector, _ZERO), _ZERO, vector)


def _is(builder: Any, flag: Any) -> Any:
    return builder.icmp_unsigned("!=", flag, ir.Constant(flag.type, 0))


@_intrinsic(
    "rows:n columns:n out:x out_at:n out_step:n left:x left_at:n left_step:n right:x right_at:n right_step:n length:n"
)
def dots(emit: _Emitter) -> None:
    """Write `out[out_at + p · out_step + q]`: the products of `rows` left with `columns` right rows of `length`."""
    builder = emit.builder
    for rows in emit.sizes("rows", ROWS):
        for columns in emit.sizes("columns", COLUMNS):
            sums = emit.places(rows, columns)
            lefts, rights = (
                [emit.at(emit[side], emit[f"{side}_at"], emit.times(emit[f"{side}_step"], index)) for index in range(n)]
                for side, n in (("left", rows), ("right", columns))
            )
            whole = builder.sdiv(emit["length"], _INT64(LANES))
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


@_intrinsic("width:n lines:n sums:x sums_at:n sums_step:n x:x x_at:n x_step:n places:e values:x begin:n end:n")
def gather(emit: _Emitter) -> None:
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


@_intrinsic("width:n lines:n x:x x_at:n x_step:n weights:x weights_at:n weights_step:n places:e values:x begin:n end:n")
def scatter(emit: _Emitter) -> None:
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


def _entry(emit: _Emitter, index: Any, x: Any) -> tuple[Any, Any]:
    """Return the value of an entry, as a vector, and where its patch begins."""
    entry = emit.builder.add(emit["begin"], index)
    place = emit.builder.sext(emit.number(emit["places"], entry), _INT64)
    return emit.spread(emit.number(emit["values"], entry)), emit.at(x, place)


@_intrinsic("outputs:n vectors:n side:n relu:b x:x x_at:n x_row:n out:x out_at:n chosen:e chosen_at:n down:n right:n")
def largest(emit: _Emitter) -> None:
    """Write the largest of each window of `side` × `side` pixels, for so many windows in a row, and where it is.

    As torch does: the first of equals, and NaN above all; then a ReLU if `relu`. One pixel down is a move by `down`.
    """
    builder, numbers = emit.builder, ir.VectorType(_INT32, LANES)
    pixel = emit.times(emit["vectors"], LANES)
    best, best_at = cgutils.alloca_once(builder, _VECTOR), cgutils.alloca_once(builder, numbers)
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
                    which = emit.spread(builder.trunc(moved, _INT32))
                    builder.store(builder.select(more, found, builder.load(best)), best)
                    builder.store(builder.select(more, which, builder.load(best_at)), best_at)
            at = builder.add(builder.mul(output.index, pixel), channels)
            value = builder.load(best)
            rectified = builder.select(_is(builder, emit["relu"]), _rectified(builder, value), value)
            emit.store(rectified, emit.at(emit["out"], emit["out_at"], at))
            place = builder.bitcast(emit.at(emit["chosen"], emit["chosen_at"], at), numbers.as_pointer())
            builder.store(builder.load(best_at), place, align=4)
