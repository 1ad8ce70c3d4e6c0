"""Passes of a chain of dense layers alone, whose weights are kept the other way round while they are stepped on.

A layer's weights lie as inputs × outputs, filled up with zeros to whole vectors, with the bias as the last row. So what
an input is multiplied by is one row, and an input that is zero costs nothing in either direction:

    y[n, :] = b + Σ_i x[n, i] · W[i, :],        W[i, :] −= η Σ_n x[n, i] · g[n, :]        over what is not zero of x

Half of what a ReLU lets through is zero. Terms are summed by themselves, some at a time, before they are added to what
is there, which may be much larger: so less is lost to rounding than in torch. A weight that is no finite number is one
by a gradient that is none either, so that the loss says so.

Four in five pixels of a digit are one and the same number c, the background, which is not zero once images are
normalized. With x = c + d, where d is mostly zero, and W[i, :] = V[i, :] + u for all i, no step touches all of W:

    y[n, :] = b + c (S + I u) + (Σ_i d[n, i]) u + Σ_i d[n, i] · V[i, :]       S = Σ_i V[i, :] of I inputs
    V[i, :] += Σ_n d[n, i] · h[n, :],    u += c Σ_n h[n, :],    S += Σ_n (Σ_i d[n, i]) h[n, :]      h = −η g

u begins as zero and is added to V after some steps, so that nobody else has to know. S and u are kept in double
precision: an error in them is one in each product of each step that follows.
"""

from typing import Any

import numpy as np
from numba import boolean, int64

from featherfed.compiling.emitter import LANES, compiled, entered, get, put
from featherfed.learning.compiled.blocks import ZERO, mask, tiles
from featherfed.learning.compiled.kernels import cross_entropy, take
from featherfed.learning.compiled.table import (
    BIAS,
    BY_INPUT,
    COUNTS,
    ENDS,
    ENDS_BY_INPUT,
    ENTRIES,
    INPUTS,
    NUMBERS,
    OUTPUTS,
    PATCHES,
    RELU,
    TURNED,
    TURNED_ROWS,
    WEIGHTS,
    X_GRADIENT,
    X_IMAGE,
    Y_GRADIENT,
    Y_IMAGE,
    X,
    Y,
)
from featherfed.learning.compiled.vectors import BOTH, LONG, both, get_place, listed, listing, put_place

SQUARE = 16
"""Rows and columns that are turned at a time, so that both sides of it are in the first cache."""

PIECE = 64
"""Inputs whose products are summed by themselves where all of them count: less is lost to rounding."""

SUMS, SHARED, MORE, STEPS = range(4)
"""Rows of `kept`, in double precision: S, u, Σ_i d[n, i] of each image, and Σ_n h[n, :]."""


@compiled
def _list_by_input(stage: Any, count: Any, entries: Any, values: Any, counts: Any) -> None:
    """Write the lists of all images as one for each input, whose entries are images in their order."""
    inputs, starts, ends = stage[INPUTS], stage[COUNTS], stage[ENDS_BY_INPUT]
    for i in range(inputs + 1):
        counts[ends + i] = 0
    for e in range(counts[starts], counts[starts + count]):
        counts[ends + 1 + get_place(entries, e)] += 1
    # Where each input's list begins, which is where the one before ends.
    begin = stage[BY_INPUT]
    counts[ends] = begin
    for i in range(1, inputs + 1):
        length = counts[ends + i]
        counts[ends + i] = begin
        begin += length
    for image in range(count):
        for e in range(counts[starts + image], counts[starts + image + 1]):
            cursor = ends + 1 + get_place(entries, e)
            to = counts[cursor]
            put_place(entries, to, image)
            put(values, to, get(values, e))
            counts[cursor] = to + 1


@compiled
def _rows(
    rows: Any, vectors: Any, adds: Any, out: Any, out_at: Any, out_step: Any, first: Any, first_at: Any,
    x: Any, x_at: Any, x_step: Any, entries: Any, values: Any, counts: Any, starts: Any,
) -> None:  # fmt: skip
    """Have `listed` write all vectors of so many rows."""
    chunks = (vectors + LONG - 1) // LONG
    for chunk in range(chunks):
        begin = vectors * chunk // chunks
        at = begin * LANES
        listed(
            rows, vectors * (chunk + 1) // chunks - begin, adds, out, out_at + at, out_step, first, first_at + at,
            x, x_at + at, x_step, entries, values, counts, starts,
        )  # fmt: skip


@compiled
def _start_shifted(stage: Any, count: Any, background: Any, work: Any, values: Any, counts: Any, kept: Any) -> None:
    """Write what the first layer's products begin as, of inputs with a background: all but Σ_i d[n, i] · V[i, :]."""
    inputs, outputs, starts, at = stage[INPUTS], stage[Y_IMAGE], stage[COUNTS], stage[Y]
    sums, shared, more = kept[SUMS], kept[SHARED], kept[MORE]
    bias = stage[TURNED] + inputs * outputs
    for image in range(count):
        total = 0.0
        for e in range(counts[starts + image], counts[starts + image + 1]):
            total += get(values, e)
        more[image] = total
        weight = background * inputs + total
        for o in range(outputs):
            value = get(work, bias + o) + (background * sums[o] + weight * shared[o])
            put(work, at + o, np.float32(value))
        at += outputs


@compiled
def _multiply_listed(stage: Any, count: Any, started: Any, work: Any, entries: Any, values: Any, counts: Any) -> None:
    """Take a layer's products of what is not zero, and its ReLU; they begin as the bias, or what is there.

    What is there may be all there is: the ReLU is taken of every row.
    """
    outputs, weights = stage[Y_IMAGE], stage[TURNED]
    _rows(
        count, outputs // LANES, started, work, stage[Y], outputs, work,
        weights + stage[INPUTS] * outputs, work, weights, outputs, entries, values, counts, stage[COUNTS],
    )  # fmt: skip
    if stage[RELU]:
        for at in range(stage[Y], stage[Y] + count * outputs):
            value = get(work, at)
            put(work, at, ZERO if value < 0 else value)


@compiled
def _multiply_all(stage: Any, count: Any, work: Any, places: Any) -> None:
    """Take a layer's products of all inputs, `PIECE` of them after the other, and its ReLU."""
    inputs, outputs, weights = stage[INPUTS], stage[Y_IMAGE], stage[TURNED]
    for begin in range(0, inputs, PIECE):
        some = min(PIECE, inputs - begin)
        tiles(
            count, outputs, work, stage[Y], places, stage[PATCHES], begin > 0, boolean(True), work,
            weights + inputs * outputs, int64(1), stage[RELU] != 0 and begin + some == inputs,
            work, stage[X] + begin, places, stage[ENDS], int64(1), int64(0), some, int64(1),
            work, weights + begin * outputs, int64(0), outputs,
        )  # fmt: skip


@compiled
def _multiply_back(
    stage: Any, count: Any, shifted: Any, background: Any, first: Any, work: Any, places: Any, entries: Any,
    values: Any, counts: Any, kept: Any,
) -> None:  # fmt: skip
    """Step a layer's weights, and take the gradient by its input unless it is the first."""
    inputs, outputs, weights, h = stage[INPUTS], stage[Y_IMAGE], stage[TURNED], stage[Y_GRADIENT]
    if stage[RELU]:
        mask(work, h, stage[Y], count * outputs)
    steps, bias = kept[STEPS], weights + inputs * outputs
    for o in range(outputs):
        steps[o] = 0.0
    for at in range(h, h + count * outputs, outputs):
        for o in range(outputs):
            steps[o] += get(work, at + o)
    for o in range(outputs):
        put(work, bias + o, np.float32(get(work, bias + o) + steps[o]))
    if shifted:
        sums, shared, more = kept[SUMS], kept[SHARED], kept[MORE]
        for o in range(outputs):
            shared[o] += background * steps[o]
        for image in range(count):
            most, at = more[image], h + image * outputs
            for o in range(outputs):
                sums[o] += most * get(work, at + o)
    if first and not shifted:
        tiles(
            inputs, outputs, work, weights, places, stage[TURNED_ROWS], boolean(True), boolean(True), work, weights,
            int64(0), boolean(False), work, stage[X], places, stage[NUMBERS], int64(1), int64(0), count,
            stage[X_IMAGE], work, h, int64(0), outputs,
        )  # fmt: skip
        return
    _list_by_input(stage, count, entries, values, counts)
    if first:
        _rows(
            inputs, outputs // LANES, boolean(True), work, weights, outputs, work, weights,
            work, h, outputs, entries, values, counts, stage[ENDS_BY_INPUT],
        )  # fmt: skip
        return
    vectors = outputs // LANES
    chunks = (vectors + BOTH - 1) // BOTH
    for chunk in range(chunks):
        begin = vectors * chunk // chunks
        at = begin * LANES
        both(
            inputs, vectors * (chunk + 1) // chunks - begin, chunk > 0, work, stage[X_GRADIENT], stage[X_IMAGE],
            work, weights + at, outputs, work, h + at, outputs, entries, values, counts, stage[ENDS_BY_INPUT],
        )  # fmt: skip


@compiled
def _begin_shifted(stage: Any, work: Any, kept: Any) -> None:
    """Sum the first layer's weights over its inputs; what their rows share begins as zero."""
    inputs, outputs, weights = stage[INPUTS], stage[Y_IMAGE], stage[TURNED]
    sums, shared = kept[SUMS], kept[SHARED]
    for o in range(outputs):
        sums[o] = 0.0
        shared[o] = 0.0
    for at in range(weights, weights + inputs * outputs, outputs):
        for o in range(outputs):
            sums[o] += get(work, at + o)


@compiled
def _end_shifted(stage: Any, work: Any, kept: Any) -> None:
    """Add what the rows of the first layer's weights share to each of them."""
    inputs, outputs, weights, shared = stage[INPUTS], stage[Y_IMAGE], stage[TURNED], kept[SHARED]
    for at in range(weights, weights + inputs * outputs, outputs):
        for o in range(outputs):
            put(work, at + o, np.float32(get(work, at + o) + shared[o]))


@compiled
def _forward(
    table: Any, state: Any, kept: Any, inputs: Any, length: Any, shifted: Any, background: Any, chosen: Any
) -> None:
    """Leave the logits of the chosen inputs in the last stage's output."""
    work, places, _, entries, values, counts, _ = state
    count = len(chosen)
    for number in range(len(table)):
        stage = table[number]
        if number == 0 and not shifted:
            take(stage, inputs, length, chosen, work, int64(1))
            _multiply_all(stage, count, work, places)
            continue
        # The gradient by an input that no ReLU made zero is wanted even where it is zero.
        every = number > 0 and table[number - 1, RELU] == 0
        end = stage[ENTRIES]
        counts[stage[COUNTS]] = end
        for image in range(count):
            if number == 0:
                end = listing(inputs, chosen[image] * length, length, background, boolean(False), end, entries, values)
            else:
                at = stage[X] + image * stage[X_IMAGE]
                end = listing(work, at, stage[INPUTS], ZERO, every, end, entries, values)
            counts[stage[COUNTS] + image + 1] = end
        if number == 0:
            _start_shifted(stage, count, np.float64(background), work, values, counts, kept)
        _multiply_listed(stage, count, number == 0, work, entries, values, counts)


@compiled
def _turned(stage: Any, weights: Any, work: Any, back: Any) -> None:
    """Copy a layer's weights and bias to where they lie the other way round, or `back`."""
    inputs, outputs, step = stage[INPUTS], stage[OUTPUTS], stage[Y_IMAGE]
    flat, turned, bias = stage[WEIGHTS], stage[TURNED], stage[BIAS]
    for begin in range(0, inputs, SQUARE):
        end = min(begin + SQUARE, inputs)
        for o in range(outputs):
            for i in range(begin, end):
                if back:
                    put(weights, flat + o * inputs + i, get(work, turned + i * step + o))
                else:
                    put(work, turned + i * step + o, get(weights, flat + o * inputs + i))
    turned += inputs * step
    for o in range(outputs):
        if back:
            put(weights, bias + o, get(work, turned + o))
        else:
            put(work, turned + o, get(weights, bias + o))


@entered
def above(inputs: Any, background: Any) -> Any:
    """Return how many numbers are not the background."""
    count = 0
    for at in range(len(inputs)):
        count += int64(get(inputs, at) != background)
    return count


@entered
def turn(table: Any, work: Any, kept: Any, weights: Any, back: Any) -> None:
    """Take all layers' weights from the flat vector, and sum the first layer's; or write them to it if `back`."""
    for number in range(len(table)):
        if back:
            _turned(table[number], weights, work, True)
        else:
            _turned(table[number], weights, work, False)
    _begin_shifted(table[0], work, kept)


@entered
def infer(
    table: Any,
    state: Any,
    kept: Any,
    inputs: Any,
    length: Any,
    shifted: Any,
    background: Any,
    at_once: Any,
    logits: Any,
) -> None:
    """Write the logits, (examples, classes), of all inputs, of `length` numbers each, so many at once.

    The weights are as `turn` left them, with their sums.
    """
    last = table[len(table) - 1]
    for begin in range(0, len(logits), at_once):
        chosen = np.arange(begin, min(begin + at_once, len(logits)))
        _forward(table, state, kept, inputs, length, shifted, background, chosen)
        for image in range(len(chosen)):
            for o in range(last[OUTPUTS]):
                logits[begin + image, o] = get(state[0], last[Y] + image * last[Y_IMAGE] + o)


@entered
def descend(
    table: Any, state: Any, kept: Any, inputs: Any, length: Any, shifted: Any, background: Any, labels: Any,
    chosen: Any, batch: Any, rate: Any, losses: Any,
) -> None:  # fmt: skip
    """Step by −rate times the gradient of each `batch` of the chosen inputs in turn; write the batches' mean losses.

    The inputs have a `background` if they are `shifted`, else it is zero.
    """
    work, places, _, entries, values, counts, _ = state
    if shifted:
        _begin_shifted(table[0], work, kept)
    last = table[len(table) - 1]
    gradient = last[Y_GRADIENT]
    for number in range(len(losses)):
        some = chosen[number * batch : (number + 1) * batch]
        _forward(table, state, kept, inputs, length, shifted, background, some)
        losses[number] = cross_entropy(last, labels, some, work)
        # A step adds −rate · g · x to the weights: all gradients are of that size.
        for at in range(gradient, gradient + len(some) * last[Y_IMAGE]):
            put(work, at, -rate * get(work, at))
        for layer in range(len(table) - 1, -1, -1):
            _multiply_back(
                table[layer], len(some), shifted and layer == 0, np.float64(background), layer == 0, work, places,
                entries, values, counts, kept,
            )  # fmt: skip
    if shifted:
        _end_shifted(table[0], work, kept)
