"""docs/PROTOCOL.md says of models, data and training what the code does, so that a phone of another language agrees."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featherfed.partitions import largest_shard, partition_labels
from featherfed.problem import Place
from featherfed.problems.digits import TEST_SHARE, load
from featherfed.problems.moves import moves, shifted
from featherfed.randomness import RoundKey
from featherfed.server.model.aggregation import MAX_EXAMPLES
from tests.docs.learning import (
    BATCH,
    COUNT,
    LABEL,
    LR,
    MOMENTUM,
    PIXEL,
    PROX_MU,
    START,
    WEIGHT_DECAY,
    architecture_rows,
    data_rows,
    sgd_rows,
    sgd_steps,
    trained_update,
)
from tests.docs.test_protocol_page import WORDS, between, rows
from tests.layouts import digits

MEAN, DEVIATION = 0.1307, 0.3081


def test_layers_are_the_code_s() -> None:
    assert rows(between("architecture")) == architecture_rows()


def test_data_sets_are_the_code_s() -> None:
    assert rows(between("data")) == data_rows()
    assert f"(p/255 − {MEAN})/{DEVIATION}" in WORDS
    test = digits().test_examples(Place())
    assert test is not None and len(test) == 1797 // TEST_SHARE == 1797 - 1438
    pixels, labels = load(Path(), train=False)
    assert test.inputs.squeeze(1).numpy() == pytest.approx((pixels / 255 - MEAN) / DEVIATION, abs=1e-5)
    assert f"where phones share no data set it is {MAX_EXAMPLES:,}" in WORDS
    assert f"the first {len(labels)} are for testing" in WORDS


def test_two_steps_of_sgd_are_the_code_s() -> None:
    assert rows(between("sgd")) == sgd_rows()
    # The page's formulas against the real training: one step with all examples, and two, the last batch of one.
    for batch_size, steps in ((COUNT, 1), (0, 1), (BATCH, 2)):
        *_, last = (step for _, step in zip(range(steps), sgd_steps(), strict=False))
        expected = {name: values[-1] - START[name] for name, values in last.items()}
        assert trained_update(batch_size=batch_size) == pytest.approx(expected, abs=1e-6)


def test_settings_and_update_of_the_example_are_in_the_text() -> None:
    assert f"η = {LR}, β = {MOMENTUM}, λ = {WEIGHT_DECAY}, μ = {PROX_MU}, E = 1, B = {BATCH}" in WORDS
    assert f"with the input {PIXEL:g} and the class {LABEL}; a₀ = {START['a₀']} and all else 0 at first" in WORDS
    update = {name: f"{value:.6f}".replace("-", "−") for name, value in trained_update(batch_size=BATCH).items()}
    words = f"{update['a₀']} for a₀, {update['aₖ']} for each aₖ, {update['b₀']} for b₀, {update['bₖ']} for each bₖ"
    assert words in WORDS


def shards_of_the_page(spec: str, labels: np.ndarray, count: int, seed: int) -> list[list[int]]:
    """Draw a partition as the page's table says."""
    draw = RoundKey(seed, 0, -1).generator(f"partition/{spec}/{count}")
    name, _, text = spec.partition(":")
    examples = len(labels)
    if name == "dirichlet":
        shards: list[list[int]] = [[] for _ in range(count)]
        for label in sorted(set(labels)):
            mine = draw.permutation([at for at in range(examples) if labels[at] == label])
            sums = np.rint(np.cumsum(draw.dirichlet([float(text)] * count)) * len(mine)).astype(int)
            for shard, start, end in zip(shards, [0, *sums[:-1]], [*sums[:-1], len(mine)], strict=True):
                shard.extend(mine[start:end])
        for shard in shards:
            if not shard:
                shard.append(max(shards, key=len).pop(0))
        return [sorted(shard) for shard in shards]
    order = list(draw.permutation(examples))
    if name == "iid":
        sizes = [examples // count + (shard < examples % count) for shard in range(count)]
    elif name == "quantity":
        sums = np.rint(np.cumsum(draw.dirichlet([float(text)] * count)) * (examples - count)).astype(int)
        sizes = list(np.diff([0, *(sums + np.arange(1, count + 1))]))
    else:
        each, width = int(text), examples // (int(text) * count)
        order.sort(key=lambda at: labels[at])
        cut = [order[place * width : (place + 1) * width] for place in draw.permutation(each * count)]
        return [sorted(at for part in cut[each * i : each * (i + 1)] for at in part) for i in range(count)]
    ends = np.cumsum(sizes)
    return [sorted(order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize("spec", ["iid", "shards:2", "dirichlet:0.5", "dirichlet:0.01", "quantity:0.5"])
def test_partitions_are_drawn_as_the_page_says(spec: str) -> None:
    _, labels = load(Path(), train=True)
    shards = [list(shard) for shard in partition_labels(spec, labels, 37, 5)]
    assert shards == shards_of_the_page(spec, labels, 37, 5)


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ("iid", lambda examples, shards: math.ceil(examples / shards)),
        ("shards:3", lambda examples, shards: 3 * max(1, examples // (3 * shards))),
        ("dirichlet:1", lambda examples, shards: examples - shards + 1),
        ("quantity:1", lambda examples, shards: examples - shards + 1),
    ],
)
def test_examples_may_be_as_many_as_the_page_says(spec: str, most: Callable[[int, int], int]) -> None:
    for examples, shards in ((1438, 1), (1438, 37), (60_000, 100), (60_000, 7)):
        assert largest_shard(spec, examples, shards) == most(examples, shards)


def test_shift_moves_down_and_right_and_fills_with_the_least_value() -> None:
    images = digits().examples(Place()).inputs[:3]
    move = shifted({"shift": 2})
    assert move is not None and shifted({"shift": 0}) is None
    key = RoundKey(7, 1, 0)
    drawn = key.generator("shift").integers(0, 5, (2, 3))
    for image, moved, down, right in zip(images, move(images, key.generator("shift")), *(2 - drawn), strict=True):
        # A draw of 0 is the window's first place in the frame: the image moves down, or right, by all of the shift.
        expected = np.full((32, 32), images.min())
        expected[2 + down : 30 + down, 2 + right : 30 + right] = image[0]
        assert (moved[0].numpy() == expected[2:30, 2:30]).all()
    assert float(images.min()) == pytest.approx((0 - MEAN) / DEVIATION)


def test_warp_takes_each_pixel_from_where_the_page_says() -> None:
    images = digits().examples(Place()).inputs[:3]
    warp = moves({"shift": 0, "warp": 0.5, "warp_epochs": 2})
    key = RoundKey(7, 1, 0)
    assert warp is not None
    made = warp(images, key.generator("shift"))
    turned, scaled, sheared = 0.5 * (2 * key.generator("shift").random((3, 3), np.float32) - 1)
    for image, warped, draw in zip(images, made, zip(turned, scaled, sheared, strict=True), strict=True):
        theta, zoom, shear = math.radians(12 * draw[0]), 1 + 0.1 * draw[1], 0.1 * draw[2]
        framed = np.pad(image[0].numpy().astype(float), 20, constant_values=float(images.min()))
        for row, column in itertools.product(range(28), repeat=2):
            x, y = column - 13.5, row - 13.5
            across = (math.cos(theta) * (x + shear * y) - math.sin(theta) * y) / zoom + 33.5
            down = (math.sin(theta) * (x + shear * y) + math.cos(theta) * y) / zoom + 33.5
            left, above = math.floor(across), math.floor(down)
            near_x, near_y = across - left, down - above
            square = framed[above : above + 2, left : left + 2]
            expected = [1 - near_y, near_y] @ square @ [1 - near_x, near_x]
            assert float(warped[0, row, column]) == pytest.approx(expected, abs=1e-3)
