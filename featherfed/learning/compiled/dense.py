"""Passes of a chain of dense layers alone, whose weights are kept the other way round while they are stepped on.

A layer's weights lie as inputs × outputs, filled up with zeros to whole vectors, with the bias as the last row. So what
an input is multiplied by is one row, and an input that is zero costs nothing in either direction:

    y[n, :] = b + Σ_i x[n, i] · W[i, :],        W[i, :] −= η Σ_n x[n, i] · g[n, :]        over what is not zero of x

Half of what a ReLU lets through is zero. Where most inputs are not, blocks of rows take all of them; the sums have the
same order, and the same bits, since a product with zero changes no finite sum. A weight that is no finite number is one
by a gradient that is none either, so that the loss says so.

Four in five pixels of a digit are one and the same number c, the background, which is not zero once images are
normalized. With x = c + d, where d is mostly zero, and W[i, :] = V[i, :] + u for all i, no step touches all of W:

    y[n, :] = b + c (S + I u) + (Σ_i d[n, i]) u + Σ_i d[n, i] · V[i, :]       S = Σ_i V[i, :] of I inputs
    V[i, :] += Σ_n d[n, i] · h[n, :],    u += c Σ_n h[n, :],    S += Σ_n (Σ_i d[n, i]) h[n, :]      h = −η g

u begins as zero and is added to V after some steps, so that nobody else has to know.
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
from featherfed.learning.compiled.vectors import COLUMNS, LONG, ROWS, dots, get_place, listed, put_place

SQUARE = 16
"""Rows and columns that are turned at a time, so that both sides of it are in the first cache."""


@compiled
def _list(x: Any, at: Any, length: Any, background: Any, end: Any, entries: Any, values: Any) -> Any:
    """Write the numbers and values of what is not zero above the background; return where the list ends."""
    for i in range(length):
        value = get(x, at + i) - background
        put_place(entries, end, i)
        put(values, end, value)
        end += int64(value != 0)
    return end


@compiled
def _is_sparse(stage: Any, count: Any, counts: Any) -> Any:
    """Whether what is not zero is so little that going through lists is faster."""
    begin = stage[COUNTS]
    return 2 * (counts[begin + count] - counts[begin]) < count * stage[INPUTS]


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
    rows: Any, vectors: Any, adds: Any, relu: Any, out: Any, out_at: Any, out_step: Any, first: Any, first_at: Any,
    x: Any, x_at: Any, x_step: Any, entries: Any, values: Any, counts: Any, starts: Any,
) -> None:  # fmt: skip
    """Have `listed` write all vectors of so many rows."""
    chunks = (vectors + LONG - 1) // LONG
    for chunk in range(chunks):
        begin = vectors * chunk // chunks
        at = begin * LANES
        listed(
            rows, vectors * (chunk + 1) // chunks - begin, adds, relu, out, out_at + at, out_step, first, first_at + at,
            x, x_at + at, x_step, entries, values, counts, starts,
        )  # fmt: skip


@compiled
def _multiply(stage: Any, count: Any, work: Any, places: Any, entries: Any, values: Any, counts: Any) -> None:
    """Take a layer's products and its ReLU."""
    outputs, weights = stage[Y_IMAGE], stage[TURNED]
    bias = weights + stage[INPUTS] * outputs
    if _is_sparse(stage, count, counts):
        _rows(
            count, outputs // LANES, boolean(False), stage[RELU] != 0, work, stage[Y], outputs, work, bias,
            work, weights, outputs, entries, values, counts, stage[COUNTS],
        )  # fmt: skip
    else:
        tiles(
            count, outputs, work, stage[Y], places, stage[PATCHES], boolean(False), work, bias, int64(1),
            stage[RELU] != 0, work, stage[X], places, stage[ENDS], int64(1), int64(0), stage[INPUTS], int64(1),
            work, weights, int64(0), outputs,
        )  # fmt: skip


@compiled
def _multiply_back(
    stage: Any, count: Any, rate: Any, work: Any, places: Any, entries: Any, values: Any, counts: Any
) -> None:
    """Take the gradient by a layer's input, and step its weights."""
    inputs, outputs, weights, g = stage[INPUTS], stage[Y_IMAGE], stage[TURNED], stage[Y_GRADIENT]
    if stage[RELU]:
        mask(work, g, stage[Y], count * outputs)
    if stage[X_GRADIENT] >= 0:
        groups = (count + ROWS - 1) // ROWS
        i = 0
        while i < inputs:
            columns = min(COLUMNS, inputs - i)
            for group in range(groups):
                begin = count * group // groups
                dots(
                    count * (group + 1) // groups - begin, columns, work,
                    stage[X_GRADIENT] + begin * stage[X_IMAGE] + i, stage[X_IMAGE], work, g + begin * outputs, outputs,
                    work, weights + i * outputs, outputs, outputs,
                )  # fmt: skip
            i += columns
    # A step adds −rate · g · x to the weights: from here on g is of that size.
    for at in range(g, g + count * outputs):
        put(work, at, -rate * get(work, at))
    if _is_sparse(stage, count, counts):
        _list_by_input(stage, count, entries, values, counts)
        _rows(
            inputs, outputs // LANES, boolean(True), boolean(False), work, weights, outputs, work, weights,
            work, g, outputs, entries, values, counts, stage[ENDS_BY_INPUT],
        )  # fmt: skip
    else:
        tiles(
            inputs, outputs, work, weights, places, stage[TURNED_ROWS], boolean(True), work, weights, int64(0),
            boolean(False), work, stage[X], places, stage[NUMBERS], int64(1), int64(0), count, stage[X_IMAGE],
            work, g, int64(0), outputs,
        )  # fmt: skip
    bias = weights + inputs * outputs
    for image in range(count):
        for o in range(outputs):
            put(work, bias + o, get(work, bias + o) + get(work, g + image * outputs + o))


@compiled
def _total(begin: Any, end: Any, values: Any) -> Any:
    """Return the sum of a list."""
    total = ZERO
    for e in range(begin, end):
        total += values[e]
    return total


@compiled
def _multiply_shifted(
    stage: Any, count: Any, background: Any, work: Any, entries: Any, values: Any, counts: Any
) -> None:
    """Take the first layer's products, of inputs with a background, and its ReLU."""
    inputs, outputs, starts = stage[INPUTS], stage[Y_IMAGE], stage[COUNTS]
    bias = stage[TURNED] + inputs * outputs
    sums, shared = bias + outputs, bias + 2 * outputs
    for image in range(count):
        most = _total(counts[starts + image], counts[starts + image + 1], values)
        for o in range(outputs):
            u = get(work, shared + o)
            value = get(work, bias + o) + background * (get(work, sums + o) + np.float32(inputs) * u) + most * u
            put(work, stage[Y] + image * outputs + o, value)
    _rows(
        count, outputs // LANES, boolean(True), boolean(False), work, stage[Y], outputs, work, bias,
        work, stage[TURNED], outputs, entries, values, counts, starts,
    )  # fmt: skip
    if stage[RELU]:
        for at in range(stage[Y], stage[Y] + count * outputs):
            value = get(work, at)
            put(work, at, ZERO if value < 0 else value)


@compiled
def _multiply_back_shifted(
    stage: Any, count: Any, background: Any, rate: Any, work: Any, entries: Any, values: Any, counts: Any
) -> None:
    """Step the first layer's weights, of inputs with a background."""
    inputs, outputs, starts, g = stage[INPUTS], stage[Y_IMAGE], stage[COUNTS], stage[Y_GRADIENT]
    bias = stage[TURNED] + inputs * outputs
    sums, shared = bias + outputs, bias + 2 * outputs
    if stage[RELU]:
        mask(work, g, stage[Y], count * outputs)
    for at in range(g, g + count * outputs):
        put(work, at, -rate * get(work, at))
    for image in range(count):
        most = _total(counts[starts + image], counts[starts + image + 1], values)
        for o in range(outputs):
            h = get(work, g + image * outputs + o)
            put(work, bias + o, get(work, bias + o) + h)
            put(work, shared + o, get(work, shared + o) + background * h)
            put(work, sums + o, get(work, sums + o) + most * h)
    _list_by_input(stage, count, entries, values, counts)
    _rows(
        inputs, outputs // LANES, boolean(True), boolean(False), work, stage[TURNED], outputs, work, bias,
        work, g, outputs, entries, values, counts, stage[ENDS_BY_INPUT],
    )  # fmt: skip


@compiled
def _begin_shifted(stage: Any, work: Any) -> None:
    """Sum the first layer's weights over its inputs; what their rows share begins as zero."""
    inputs, outputs = stage[INPUTS], stage[Y_IMAGE]
    sums = stage[TURNED] + (inputs + 1) * outputs
    for at in range(sums, sums + 2 * outputs):
        put(work, at, ZERO)
    for i in range(inputs):
        for o in range(outputs):
            put(work, sums + o, get(work, sums + o) + get(work, stage[TURNED] + i * outputs + o))


@compiled
def _end_shifted(stage: Any, work: Any) -> None:
    """Add what the rows of the first layer's weights share to each of them."""
    inputs, outputs = stage[INPUTS], stage[Y_IMAGE]
    shared = stage[TURNED] + (inputs + 2) * outputs
    for i in range(inputs):
        for o in range(outputs):
            at = stage[TURNED] + i * outputs + o
            put(work, at, get(work, at) + get(work, shared + o))


@compiled
def _forward(table: Any, state: Any, inputs: Any, length: Any, shifted: Any, background: Any, chosen: Any) -> None:
    """Leave the logits of the chosen inputs in the last stage's output."""
    work, places, _, entries, values, counts, _ = state
    count = len(chosen)
    for number in range(len(table)):
        stage = table[number]
        end = stage[ENTRIES]
        counts[stage[COUNTS]] = end
        for image in range(count):
            if number == 0:
                end = _list(inputs, chosen[image] * length, length, background, end, entries, values)
            else:
                end = _list(work, stage[X] + image * stage[X_IMAGE], stage[INPUTS], ZERO, end, entries, values)
            counts[stage[COUNTS] + image + 1] = end
        if number == 0 and shifted:
            _multiply_shifted(stage, count, background, work, entries, values, counts)
            continue
        if number == 0 and not _is_sparse(stage, count, counts):
            take(stage, inputs, length, chosen, work, int64(1))
        _multiply(stage, count, work, places, entries, values, counts)


@compiled
def _turned(stage: Any, weights: Any, work: Any, back: Any) -> None:
    """Copy a layer's weights and bias to where they lie the other way round, or `back`."""
    inputs, outputs, step = stage[INPUTS], stage[OUTPUTS], stage[Y_IMAGE]
    for begin in range(0, inputs, SQUARE):
        end = min(begin + SQUARE, inputs)
        for o in range(outputs):
            for i in range(begin, end):
                flat, turned = stage[WEIGHTS] + o * inputs + i, stage[TURNED] + i * step + o
                if back:
                    put(weights, flat, get(work, turned))
                else:
                    put(work, turned, get(weights, flat))
    for o in range(outputs):
        flat, turned = stage[BIAS] + o, stage[TURNED] + inputs * step + o
        if back:
            put(weights, flat, get(work, turned))
        else:
            put(work, turned, get(weights, flat))


@entered
def above(inputs: Any, background: Any) -> Any:
    """Return how many numbers are not the background."""
    count = 0
    for at in range(len(inputs)):
        count += int64(get(inputs, at) != background)
    return count


@entered
def turn(table: Any, work: Any, weights: Any, back: Any) -> None:
    """Take all layers' weights from the flat vector, and sum the first layer's; or write them to it if `back`."""
    for number in range(len(table)):
        if back:
            _turned(table[number], weights, work, True)
        else:
            _turned(table[number], weights, work, False)
    _begin_shifted(table[0], work)


@entered
def infer(
    table: Any, state: Any, inputs: Any, length: Any, shifted: Any, background: Any, at_once: Any, logits: Any
) -> None:
    """Write the logits, (examples, classes), of all inputs, of `length` numbers each, so many at once.

    The weights are as `turn` left them, with their sums.
    """
    last = table[len(table) - 1]
    for begin in range(0, len(logits), at_once):
        chosen = np.arange(begin, min(begin + at_once, len(logits)))
        _forward(table, state, inputs, length, shifted, background, chosen)
        for image in range(len(chosen)):
            for o in range(last[OUTPUTS]):
                logits[begin + image, o] = get(state[0], last[Y] + image * last[Y_IMAGE] + o)


@entered
def descend(
    table: Any, state: Any, inputs: Any, length: Any, shifted: Any, background: Any, labels: Any, chosen: Any,
    batch: Any, rate: Any, losses: Any,
) -> None:  # fmt: skip
    """Step by −rate times the gradient of each `batch` of the chosen inputs in turn; write the batches' mean losses.

    The inputs have a `background` if they are `shifted`, else it is zero.
    """
    work, places, _, entries, values, counts, _ = state
    if shifted:
        _begin_shifted(table[0], work)
    for number in range(len(losses)):
        some = chosen[number * batch : (number + 1) * batch]
        _forward(table, state, inputs, length, shifted, background, some)
        losses[number] = cross_entropy(table[len(table) - 1], labels, some, work)
        for layer in range(len(table) - 1, -1, -1):
            if layer == 0 and shifted:
                _multiply_back_shifted(table[0], len(some), background, rate, work, entries, values, counts)
            else:
                _multiply_back(table[layer], len(some), rate, work, places, entries, values, counts)
    if shifted:
        _end_shifted(table[0], work)
