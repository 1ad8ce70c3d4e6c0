"""Forward and backward passes of a chain of layers, compiled: a step is one call, and allocates nothing.

`program.py` lays a chain out as a table of stages (`table.py`), and one flat array, `work`, for all that lies between
layers. Images lie as height × width × channels, a convolution's output channels filled up with zeros to whole vectors,
and with the border of zeros that the next convolution wants. The order of all sums is fixed by the chain and the batch,
and a NaN passes through each layer as it does in torch.
"""

import math
from typing import Any

import numpy as np
from numba import boolean, int64

from featherfed.compiling.emitter import compiled, entered, get, put
from featherfed.learning.compiled.blocks import ONE, ZERO, mask, tiles
from featherfed.learning.compiled.convolution import (
    convolve,
    convolve_back,
    convolve_back_first,
    list_entries,
    pack,
    pool,
)  # fmt: skip
from featherfed.learning.compiled.table import (
    BIAS,
    BLOCK,
    BREADTH,
    CONVOLUTION,
    DENSE,
    ENDS,
    FLATTEN,
    HEIGHT,
    INPUTS,
    KIND,
    LINEAR,
    OUTPUTS,
    PATCHES,
    POOL,
    RELU,
    ROWS_OF,
    WEIGHTS,
    X_FIRST,
    X_GRADIENT,
    X_IMAGE,
    X_PIXEL,
    X_ROW,
    Y_GRADIENT,
    Y_IMAGE,
    X,
    Y,
)  # fmt: skip
from featherfed.learning.compiled.vectors import COLUMNS, ROWS, dots


@compiled
def _flatten(stage: Any, count: Any, work: Any) -> None:
    """Copy images to vectors, channel by channel as torch does."""
    at = stage[Y]
    for image in range(count):
        to = at + image * stage[Y_IMAGE]
        for c in range(stage[INPUTS]):
            for y in range(stage[HEIGHT]):
                begin = stage[X] + image * stage[X_IMAGE] + stage[X_FIRST] + y * stage[X_ROW] + c
                for x in range(stage[BREADTH]):
                    put(work, to, get(work, begin + x * stage[X_PIXEL]))
                    to += 1


@compiled
def _unflatten(stage: Any, count: Any, work: Any) -> None:
    """Copy the gradient by vectors to that by images."""
    at = stage[Y_GRADIENT]
    for image in range(count):
        begin = at + image * stage[Y_IMAGE]
        for c in range(stage[INPUTS]):
            for y in range(stage[HEIGHT]):
                to = stage[X_GRADIENT] + image * stage[X_IMAGE] + stage[X_FIRST] + y * stage[X_ROW] + c
                for x in range(stage[BREADTH]):
                    put(work, to + x * stage[X_PIXEL], get(work, begin))
                    begin += 1


@compiled
def _multiply(stage: Any, count: Any, weights: Any, work: Any) -> None:
    """Take a dense layer's products."""
    inputs, outputs = stage[INPUTS], stage[OUTPUTS]
    groups = (count + ROWS - 1) // ROWS
    o = 0
    while o < outputs:
        columns = min(COLUMNS, outputs - o)
        for group in range(groups):
            begin = count * group // groups
            dots(
                count * (group + 1) // groups - begin, columns, work, stage[Y] + begin * stage[Y_IMAGE] + o,
                stage[Y_IMAGE], work, stage[X] + begin * stage[X_IMAGE], stage[X_IMAGE],
                weights, stage[WEIGHTS] + o * inputs, inputs, inputs,
            )  # fmt: skip
        o += columns
    for image in range(count):
        at = stage[Y] + image * stage[Y_IMAGE]
        for o in range(outputs):
            value = get(work, at + o) + get(weights, stage[BIAS] + o)
            put(work, at + o, ZERO if stage[RELU] and value < 0 else value)


@compiled
def _multiply_back(
    stage: Any, count: Any, weights: Any, gradient: Any, rate: Any, steps: Any, work: Any, places: Any, constants: Any
) -> None:  # fmt: skip
    """Take a dense layer's gradients by its input and its weights, and step by the latter if it `steps`."""
    inputs, outputs, image_step, out_step = stage[INPUTS], stage[OUTPUTS], stage[X_IMAGE], stage[Y_IMAGE]
    g = stage[Y_GRADIENT]
    if stage[RELU]:
        mask(work, g, stage[Y], count * out_step)
    onward = stage[X_GRADIENT] >= 0
    # A step adds −rate · g · x to the weights: from here on g is of that size.
    scale = -rate if steps else ONE
    for begin in range(0, outputs, BLOCK):
        block = min(BLOCK, outputs - begin)
        if onward:
            # (image, i) += g (image, o) · W (o, i)
            tiles(
                count, inputs, work, stage[X_GRADIENT], places, stage[ENDS], begin > 0, boolean(False), constants,
                int64(0), int64(0), boolean(False), work, g + begin, places, stage[PATCHES], int64(1),
                int64(0), block, int64(1), weights, stage[WEIGHTS] + begin * inputs, int64(0), inputs,
            )  # fmt: skip
        for image in range(count):
            for o in range(begin, begin + block):
                at = g + image * out_step + o
                put(work, at, scale * get(work, at))
        target = weights if steps else gradient
        # (o, i) += g (image, o) · x (image, i)
        tiles(
            block, inputs, target, stage[WEIGHTS] + begin * inputs, places, stage[ROWS_OF], steps, boolean(False),
            constants, int64(0), int64(0), boolean(False), work, g + begin, places, int64(0), int64(1), int64(0),
            count, out_step, work, stage[X], int64(0), image_step,
        )  # fmt: skip
        for o in range(begin, begin + block):
            total = get(target, stage[BIAS] + o) if steps else ZERO
            for image in range(count):
                total += get(work, g + image * out_step + o)
            put(target, stage[BIAS] + o, total)


@compiled
def cross_entropy(stage: Any, labels: Any, chosen: Any, work: Any) -> Any:
    """Return the mean loss of a batch's logits; its gradient by them is (softmax(z) − t) / n."""
    count, classes = len(chosen), stage[OUTPUTS]
    share = np.float32(1 / count)
    loss = 0.0
    for image in range(count):
        z, g = stage[Y] + image * stage[Y_IMAGE], stage[Y_GRADIENT] + image * stage[Y_IMAGE]
        most = get(work, z)
        for o in range(1, classes):
            value = get(work, z + o)
            most = value if value > most or value != value else most
        total = ZERO
        for o in range(classes):
            power = math.exp(get(work, z + o) - most)
            put(work, g + o, power)
            total += power
        label = labels[chosen[image]]
        loss += math.log(total) - (get(work, z + label) - most)
        for o in range(classes):
            put(work, g + o, get(work, g + o) / total * share)
        put(work, g + label, get(work, g + label) - share)
    return loss / count


@compiled
def take(stage: Any, inputs: Any, length: Any, chosen: Any, work: Any, lines: Any) -> None:
    """Copy the chosen inputs of so many numbers into the first stage's, in so many `lines` each."""
    line_length = length // lines
    for image in range(len(chosen)):
        begin = chosen[image] * length
        for line in range(lines):
            to = stage[X] + image * stage[X_IMAGE] + stage[X_FIRST] + line * stage[X_ROW]
            for at in range(line_length):
                put(work, to + at, get(inputs, begin + line * line_length + at))


@entered
def walk(
    table: Any, state: Any, weights: Any, gradient: Any, inputs: Any, length: Any, lines: Any, labels: Any, chosen: Any,
    rate: Any, learns: Any, steps: Any,
) -> Any:  # fmt: skip
    """Leave the logits of the chosen inputs, of `length` numbers each, in the last stage's output.

    If it `learns`, return their mean loss, and step by −rate times its gradient if it `steps`, else write that to
    `gradient`.
    """
    work, places, picked, entries, values, counts, constants = state
    count = len(chosen)
    take(table[0], inputs, length, chosen, work, lines)
    for number in range(len(table)):
        stage = table[number]
        kind = stage[KIND]
        if kind == CONVOLUTION:
            pack(stage, weights, work, learns and stage[X_GRADIENT] >= 0)
            convolve(stage, count, work, places)
        elif kind == POOL:
            pool(stage, count, work, picked)
        elif kind == FLATTEN:
            _flatten(stage, count, work)
        else:
            _multiply(stage, count, weights, work)
    if not learns:
        return 0.0
    loss = cross_entropy(table[len(table) - 1], labels, chosen, work)
    for number in range(len(table) - 1, -1, -1):
        stage = table[number]
        kind = stage[KIND]
        if kind == LINEAR:
            _multiply_back(stage, count, weights, gradient, rate, steps, work, places, constants)
        elif kind == FLATTEN:
            _unflatten(stage, count, work)
        elif kind == CONVOLUTION and stage[DENSE]:
            convolve_back_first(stage, count, weights, gradient, rate, steps, work, places, constants)
        elif kind == CONVOLUTION:
            after = number + 1 if table[number + 1][KIND] == POOL else number
            list_entries(stage, table[after], count, work, picked, entries, values, counts)
            convolve_back(stage, count, weights, gradient, rate, steps, work, entries, values, counts)
    return loss
