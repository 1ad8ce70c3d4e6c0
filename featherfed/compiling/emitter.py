"""Innermost loops in LLVM's own words: what writes them, as functions that numba calls.

Arrays are flat and places in them are numbers of theirs. Nothing is looked at twice: bounds are the caller's. No sum is
taken in another order than is written, and no NaN is thought away, as `fastmath` would allow.
"""

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, Signature
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}
compiled: Any = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
"""Of a function that others of ours call."""
entered: Any = numba.njit(cache=True, **_OPTIONS)
"""Of one that Python calls: it is kept on the disk with all that it calls."""

_named = config.CPU_FEATURES
_features = (get_host_cpu_features() if _named is None else _named).split(",")
LANES = 16 if "+avx512f" in _features else 8 if "+avx" in _features else 4
"""Numbers of 32 bits in a vector."""

VECTOR = ir.VectorType(ir.FloatType(), LANES)
INT32, INT64 = ir.IntType(32), ir.IntType(64)
CONTRACT = ("contract",)
NONE = ir.Constant(VECTOR, [0.0] * LANES)


class Emitter:
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
        """Return a product of places."""
        return self.builder.mul(number, INT64(factor))

    def at(self, pointer: Any, *places: Any) -> Any:
        """Return the pointer moved by numbers."""
        for place in places:
            pointer = self.builder.gep(pointer, [INT64(place) if isinstance(place, int) else place])
        return pointer

    def number(self, pointer: Any, *places: Any) -> Any:
        """Return what is at a pointer moved by numbers."""
        return self.builder.load(self.at(pointer, *places))

    def load(self, pointer: Any, vector: int = 0) -> Any:
        """Return the vector that is so many vectors behind a pointer."""
        pointer = self.builder.bitcast(self.at(pointer, vector * LANES), VECTOR.as_pointer())
        return self.builder.load(pointer, align=4)

    def store(self, value: Any, pointer: Any, vector: int = 0) -> None:
        """Write a vector there."""
        pointer = self.builder.bitcast(self.at(pointer, vector * LANES), VECTOR.as_pointer())
        self.builder.store(value, pointer, align=4)

    def spread(self, number: Any) -> Any:
        """Return a vector of one number."""
        nothing = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
        one = self.builder.insert_element(nothing, number, INT32(0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))

    def sum_with(self, sum_: Any, left: Any, right: Any) -> Any:
        """Return a sum with one product more."""
        return self.builder.fadd(sum_, self.builder.fmul(left, right, flags=CONTRACT), flags=CONTRACT)

    def add(self, place: Any, left: Any, right: Any) -> None:
        """Add a product to the sum at a place of `places`."""
        self.builder.store(self.sum_with(self.builder.load(place), left, right), place)

    def places(self, rows: int, columns: int) -> list[list[Any]]:
        """Return places for sums, zero at first, which LLVM keeps in registers."""
        made = [[cgutils.alloca_once(self.builder, VECTOR) for _ in range(columns)] for _ in range(rows)]
        for place in (each for row in made for each in row):
            self.builder.store(NONE, place)
        return made

    def masked(self, count: Any) -> Any:
        """Return which numbers of a vector are among the first so many."""
        numbers = ir.Constant(ir.VectorType(INT32, LANES), list(range(LANES)))
        return self.builder.icmp_signed("<", numbers, self.spread(self.builder.trunc(count, INT32)))

    def load_some(self, pointer: Any, mask: Any) -> Any:
        """Return a vector of what the mask says, and zeros."""
        pointer = self.builder.bitcast(pointer, VECTOR.as_pointer())
        function = self._masked("load", VECTOR, [pointer.type, INT32, mask.type, VECTOR])
        return self.builder.call(function, [pointer, INT32(4), mask, NONE])

    def store_some(self, value: Any, pointer: Any, mask: Any) -> None:
        """Write of a vector what the mask says."""
        pointer = self.builder.bitcast(pointer, VECTOR.as_pointer())
        function = self._masked("store", ir.VoidType(), [VECTOR, pointer.type, INT32, mask.type])
        self.builder.call(function, [value, pointer, INT32(4), mask])

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{what}.v{LANES}f32.p0"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def packed(self, vector: Any, mask: Any) -> Any:
        """Return what of a vector the mask says, one behind the other."""
        kind = "f32" if vector.type == VECTOR else "i32"
        name = f"llvm.experimental.vector.compress.v{LANES}{kind}"
        function = ir.FunctionType(vector.type, [vector.type, mask.type, vector.type])
        nothing = ir.Constant(vector.type, ir.Undefined)
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, function, name), [vector, mask, nothing]
        )

    def total(self, vector: Any) -> Any:
        """Return the sum of a vector's numbers, by halves."""
        width = LANES
        while width > 1:
            width //= 2
            order = [lane + width if lane < width else 0 for lane in range(LANES)]
            moved = self.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT32, LANES), order))
            vector = self.builder.fadd(vector, moved)
        return self.builder.extract_element(vector, INT32(0))

    def sizes(self, name: str, most: int) -> Iterator[int]:
        """Write what follows for each size that an argument may have, to be taken where it has it."""
        for size in range(1, most + 1):
            with self.builder.if_then(self.builder.icmp_signed("==", self[name], INT64(size))):
                yield size


_KINDS = {
    "x": types.float32[::1],
    "n": types.int64,
    "p": types.int64[::1],
    "e": types.int32[::1],
    "u": types.uint8[::1],
    "b": types.boolean,
    "f": types.float32,
    "d": types.float64,
}
"""Numbers, an int64, places (or sums), places of entries, bytes, a truth, and single numbers of both lengths."""


def written(arguments: str, result: Any = types.void) -> Callable[[Callable[[Emitter], Any]], Any]:
    """Make a function that numba calls of one that writes its instructions; `arguments` are `name:kind`, by spaces."""
    names, letters = zip(*(each.split(":") for each in arguments.split()), strict=True)
    kinds = [_KINDS[letter] for letter in letters]

    def decorate(write: Callable[[Emitter], Any]) -> Any:
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            # Its caller is compiled once, and not again into each of its own.
            builder.function.attributes.add("noinline")
            result = write(Emitter(context, builder, names, signature.args, given))
            return context.get_dummy_value() if result is None else result

        def typed(typing: Any, *given: Any) -> Any:
            return result(*kinds), generate

        typed.__name__, typed.__doc__ = write.__name__, write.__doc__
        # numba counts a call's arguments by it.
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("typing", *names)]
        typed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return intrinsic(typed)

    return decorate


@written("x:x at:n", types.float32)
def get(emit: Emitter) -> Any:
    """Return `x[at]`."""
    return emit.number(emit["x"], emit["at"])


@written("x:x at:n value:f")
def put(emit: Emitter) -> None:
    """Set `x[at]`."""
    emit.builder.store(emit["value"], emit.at(emit["x"], emit["at"]))
