"""Random words of many generators at once, compiled: PCG64 (O'Neill 2014) as numpy seeds it and draws from it.

In Python each generator is an object that takes microseconds to make; a row of signs takes less to draw.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from featherfed.compiling.emitter import compiled, entered

_LOW = np.uint64(0xFFFFFFFF)
_16, _32, _58, _63, _64 = (np.uint64(bits) for bits in (16, 32, 58, 63, 64))
_0, _1 = np.uint64(0), np.uint64(1)
_FACTOR_HIGH, _FACTOR_LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)
_TAKE, _TAKE_FACTOR = np.uint64(0x43B0D7E5), np.uint64(0x931E8875)
"""What the words of a seed are hashed with; the next two are of those that a state is made of."""
_GIVE, _GIVE_FACTOR = np.uint64(0x8B51F9DD), np.uint64(0x58F38DED)
_MIX_LEFT, _MIX_RIGHT = np.uint64(0xCA01F9DD), np.uint64(0x4973F715)


@intrinsic
def _high(typing: Any, left: Any, right: Any) -> Any:
    """Return the upper 64 bits of a product."""

    def written(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), written


@compiled
def _hashed(word: Any, constant: Any, following: Any) -> Any:
    word = ((word ^ constant) * following) & _LOW
    return word ^ (word >> _16)


@compiled
def _spread(seeds: Any, at: Any, pool: Any, state: Any) -> None:
    """Write what numpy's `SeedSequence` makes of four words: a state of four words of 64 bits."""
    constant = _TAKE
    for place in range(4):
        following = (constant * _TAKE_FACTOR) & _LOW
        pool[place] = _hashed(np.uint64(seeds[at + place]), constant, following)
        constant = following
    for source in range(4):
        for place in range(4):
            if place != source:
                following = (constant * _TAKE_FACTOR) & _LOW
                mixed = (_MIX_LEFT * pool[place] - _MIX_RIGHT * _hashed(pool[source], constant, following)) & _LOW
                pool[place] = mixed ^ (mixed >> _16)
                constant = following
    constant = _GIVE
    for place in range(8):
        following = (constant * _GIVE_FACTOR) & _LOW
        word = _hashed(pool[place % 4], constant, following)
        constant = following
        if place % 2:
            state[place // 2] |= word << _32
        else:
            state[place // 2] = word


@entered
def draw(seeds: Any, words: Any, drawn: Any) -> None:
    """Write the first `words` outputs of the generator of each seed, of four words of 32 bits, one row for each."""
    pool, state = np.empty(4, np.uint64), np.empty(4, np.uint64)
    for row in range(len(seeds) // 4):
        _spread(seeds, 4 * row, pool, state)
        add_high, add_low = (state[2] << _1) | (state[3] >> _63), (state[3] << _1) | _1
        # A step from zero gives what is added; then the state, and a step.
        high, low = add_high, add_low
        low += state[1]
        high += state[0] + (_1 if low < state[1] else _0)
        for number in range(-1, words):
            high = _high(low, _FACTOR_LOW) + high * _FACTOR_LOW + low * _FACTOR_HIGH
            low = low * _FACTOR_LOW + add_low
            high += add_high + (_1 if low < add_low else _0)
            if number >= 0:
                turn, word = high >> _58, high ^ low
                drawn[row * words + number] = (word >> turn) | (word << ((_64 - turn) & _63))
