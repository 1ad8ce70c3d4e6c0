"""The passes of convolutions and of the pools after them.

What is zero is not multiplied. After a pooling of 2 × 2 one gradient in four is not zero, of these the ReLU leaves
half, and rows that no pool looks at are never computed. So the gradient by a convolution's output is a list, for each
image and channel, of what is not zero: its value, and where its patch of the input begins. With entries (e, v) of
channel o, patches x(e) and weights W,

    ∂W[o] = Σ_e v · x(e),        ∂x(e) += v · W[o]
"""

from typing import Any

from numba import boolean, int64

from featherfed.compiling.emitter import LANES, compiled, get, put
from featherfed.learning.compiled.blocks import ZERO, mask, tiles, whole
from featherfed.learning.compiled.table import (
    BACKWARD,
    BIAS,
    BREADTH,
    BY_WEIGHTS,
    CAPACITY,
    CHOSEN,
    COUNTS,
    DOWN,
    ENDS,
    ENDS_OF_TAPS,
    ENTRIES,
    FORWARD,
    HEIGHT,
    INPUTS,
    KIND,
    OUTPUTS,
    PATCHES,
    POOL,
    RELU,
    RIGHT,
    SIDE,
    STRIDE,
    TAPS,
    WEIGHTS,
    WIDE_BIAS,
    X_FIRST,
    X_GRADIENT,
    X_IMAGE,
    X_PIXEL,
    X_ROW,
    Y_FIRST,
    Y_GRADIENT,
    Y_IMAGE,
    Y_PIXEL,
    Y_ROW,
    X,
    Y,
)  # fmt: skip
from featherfed.learning.compiled.vectors import CHUNK, WIDTH, gather, get_place, largest, put_place, scatter


@compiled
def pack(stage: Any, weights: Any, work: Any, backward: Any) -> None:
    """Lay a convolution's weights out for the passes."""
    side, inputs, outputs, pixel, across = stage[SIDE], stage[INPUTS], stage[OUTPUTS], stage[X_PIXEL], stage[Y_PIXEL]
    area, row = side * side, whole(side * pixel)
    for o in range(outputs):
        put(work, stage[WIDE_BIAS] + o, get(weights, stage[BIAS] + o))
    for down in range(side):
        for right in range(side):
            for c in range(inputs):
                at = stage[WEIGHTS] + c * area + down * side + right
                to = stage[FORWARD] + ((down * side + right) * pixel + c) * across
                for o in range(outputs):
                    put(work, to + o, get(weights, at + o * inputs * area))
    if backward:
        for o in range(outputs):
            for down in range(side):
                for right in range(side):
                    at = stage[WEIGHTS] + o * inputs * area + down * side + right
                    to = stage[BACKWARD] + (o * side + down) * row + right * pixel
                    for c in range(inputs):
                        put(work, to + c, get(weights, at + c * area))


@compiled
def convolve(stage: Any, count: Any, work: Any, places: Any) -> None:
    """Write a convolution's output, as far as somebody looks at it."""
    side = stage[SIDE]
    tiles(
        count * stage[HEIGHT] * stage[BREADTH], stage[Y_PIXEL], work, stage[Y], places, stage[ENDS], boolean(False),
        boolean(False), work, stage[WIDE_BIAS], int64(1), stage[RELU] != 0, work, stage[X], places, stage[PATCHES],
        side, stage[X_ROW], side * stage[X_PIXEL], int64(1),
        work, stage[FORWARD], side * stage[X_PIXEL] * stage[Y_PIXEL], stage[Y_PIXEL],
    )  # fmt: skip


@compiled
def pool(stage: Any, count: Any, work: Any, chosen: Any) -> None:
    """Write the largest of each window, and which it is."""
    side, pixel, breadth = stage[SIDE], stage[X_PIXEL], stage[BREADTH]
    for image in range(count):
        for y in range(stage[HEIGHT]):
            largest(
                breadth, pixel // LANES, side, stage[RELU] != 0,
                work, stage[X] + image * stage[X_IMAGE] + stage[X_FIRST] + y * side * stage[X_ROW], stage[X_ROW],
                work, stage[Y] + image * stage[Y_IMAGE] + stage[Y_FIRST] + y * stage[Y_ROW],
                chosen, stage[CHOSEN] + (image * stage[HEIGHT] + y) * breadth * pixel, stage[DOWN], stage[RIGHT],
            )  # fmt: skip


@compiled
def list_entries(
    stage: Any, after: Any, count: Any, work: Any, chosen: Any, entries: Any, values: Any, counts: Any
) -> None:  # fmt: skip
    """List what is not zero of the gradient by a convolution's output: that by the pool after it, or its own.

    `after` is the stage whose gradient is there: the pool, or the convolution itself.
    """
    pooled = after[KIND] == POOL
    side = after[SIDE] if pooled else 1
    pixel, stride = after[Y_PIXEL], stage[STRIDE]
    down, right = stride * stage[X_ROW], stride * stage[X_PIXEL]
    for image in range(count):
        for o in range(stage[OUTPUTS]):
            row = image * stage[OUTPUTS] + o
            at = stage[ENTRIES] + row * stage[CAPACITY]
            which = after[CHOSEN] + image * after[HEIGHT] * after[BREADTH] * pixel + o
            for y in range(after[HEIGHT]):
                where = image * after[Y_IMAGE] + after[Y_FIRST] + y * after[Y_ROW] + o
                for x in range(after[BREADTH]):
                    value = get(work, after[Y_GRADIENT] + where)
                    if after[RELU]:
                        value = ZERO if get(work, after[Y] + where) <= 0 else value
                    place = y * side * down + x * side * right
                    if pooled:
                        place += get_place(chosen, which)
                    # Written in any case and kept if it counts: a branch would be guessed wrong half the time.
                    put_place(entries, at, place)
                    put(values, at, value)
                    at += value != 0
                    where += pixel
                    which += pixel
            counts[stage[COUNTS] + row] = at


@compiled
def _clear(work: Any, begin: Any, length: Any) -> None:
    for at in range(begin, begin + length):
        put(work, at, ZERO)


@compiled
def convolve_back(
    stage: Any, count: Any, weights: Any, gradient: Any, rate: Any, steps: Any, work: Any, entries: Any, values: Any,
    counts: Any,
) -> None:  # fmt: skip
    """Take a convolution's gradients by its weights and its input of the lists, and step if it `steps`."""
    side, outputs = stage[SIDE], stage[OUTPUTS]
    row = whole(side * stage[X_PIXEL])
    onward = stage[X_GRADIENT] >= 0
    _clear(work, stage[BY_WEIGHTS], outputs * side * row)
    if onward:
        _clear(work, stage[X_GRADIENT], count * stage[X_IMAGE])
    for image in range(count):
        for o in range(outputs):
            at = image * outputs + o
            begin, end = stage[ENTRIES] + at * stage[CAPACITY], counts[stage[COUNTS] + at]
            if begin == end:
                continue
            line, shift = o * side * row, image * stage[X_IMAGE]
            for column in range(0, row // LANES, CHUNK):
                wide, over = min(CHUNK, row // LANES - column), column * LANES
                gather(
                    wide, side, work, stage[BY_WEIGHTS] + line + over, row, work, stage[X] + shift + over,
                    stage[X_ROW], entries, values, begin, end,
                )  # fmt: skip
                if onward:
                    scatter(
                        wide, side, work, stage[X_GRADIENT] + shift + over, stage[X_ROW], work,
                        stage[BACKWARD] + line + over, row, entries, values, begin, end,
                    )  # fmt: skip
    for o in range(outputs):
        total = ZERO
        for image in range(count):
            at = image * outputs + o
            for entry in range(stage[ENTRIES] + at * stage[CAPACITY], counts[stage[COUNTS] + at]):
                total += get(values, entry)
        put(work, stage[WIDE_BIAS] + o, total)
    _step(stage, weights, gradient, rate, steps, work, side * row, row, stage[X_PIXEL], int64(1))


@compiled
def convolve_back_first(
    stage: Any, count: Any, weights: Any, gradient: Any, rate: Any, steps: Any, work: Any, places: Any, constants: Any
) -> None:  # fmt: skip
    """Do so for the first convolution where no pool follows: few gradients are zero, none by its input is asked for."""
    side, stride, pixel, across = stage[SIDE], stage[STRIDE], stage[X_PIXEL], stage[Y_PIXEL]
    if stage[RELU]:
        mask(work, stage[Y_GRADIENT], stage[Y], count * stage[Y_IMAGE])
    for image in range(count):
        g = stage[Y_GRADIENT] + image * stage[Y_IMAGE] + stage[Y_FIRST]
        tiles(
            side * side * pixel, across, work, stage[BY_WEIGHTS], places, stage[ENDS_OF_TAPS], image > 0,
            boolean(False), constants, int64(0), int64(0), boolean(False), work, stage[X] + image * stage[X_IMAGE],
            places, stage[TAPS], stage[HEIGHT], stride * stage[X_ROW], stage[BREADTH], stride * pixel,
            work, g, stage[Y_ROW], across,
        )  # fmt: skip
        tiles(
            int64(1), across, work, stage[WIDE_BIAS], places, int64(0), image > 0, boolean(False), constants,
            int64(0), int64(0), boolean(False), constants, int64(WIDTH * LANES), places, int64(0), stage[HEIGHT],
            int64(0), stage[BREADTH], int64(0), work, g, stage[Y_ROW], across,
        )  # fmt: skip
    _step(stage, weights, gradient, rate, steps, work, int64(1), side * pixel * across, pixel * across, across)


@compiled
def _step(
    stage: Any, weights: Any, gradient: Any, rate: Any, steps: Any, work: Any, output_step: Any, down_step: Any,
    right_step: Any, input_step: Any,
) -> None:  # fmt: skip
    """Step by a convolution's gradient, which lies so in `work` and that by its bias in WIDE_BIAS, or write it."""
    side, inputs = stage[SIDE], stage[INPUTS]
    for o in range(stage[OUTPUTS]):
        at, by_bias = stage[BIAS] + o, get(work, stage[WIDE_BIAS] + o)
        if steps:
            put(weights, at, get(weights, at) - rate * by_bias)
        else:
            put(gradient, at, by_bias)
        for c in range(inputs):
            to = stage[WEIGHTS] + (o * inputs + c) * side * side
            for down in range(side):
                at = stage[BY_WEIGHTS] + o * output_step + down * down_step + c * input_step
                for right in range(side):
                    value = get(work, at + right * right_step)
                    if steps:
                        put(weights, to, get(weights, to) - rate * value)
                    else:
                        put(gradient, to, value)
                    to += 1
