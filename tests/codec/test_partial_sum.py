"""Parts of a round's sum, through bytes and up a tree: what one server would have of the same circles, to the bit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.partial_sum import MOST_PHONES, PartialSum, partial_sum_bytes, width_of
from featherfed.codec.summable import Summable
from featherfed.codec.summed import Summed
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

from .conftest import normal
from .test_summed import KEY, adder_of, sent

OF = b"round 3."
SIZE = 8192 + 5000
"""Two blocks."""


def summed_of(adder: Summable, steps: bytes) -> Summed:
    return Summed(adder, RoundKey(KEY.seed, KEY.round_number), steps=steps, members=8)


def through_bytes(adder: Summable, total: Summed, phones: int) -> PartialSum:
    part, width = total.partial(), width_of(adder.bits, phones)
    data = part.to_bytes(OF, width=width)
    assert len(data) == partial_sum_bytes(adder.coordinates, adder.num_blocks, width, sizes=len(part.squares))
    return PartialSum.from_bytes(data, OF, coordinates=adder.coordinates, blocks=adder.num_blocks)


@settings(max_examples=30, deadline=None)
@given(
    bits=st.integers(4, 16),
    circles=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    loud=st.sets(st.integers(0, 5)),
    where=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_merged_parts_are_the_sum_of_all_circles_to_the_bit(
    bits: int, circles: list[int], loud: set[int], where: list[int], seed: int
) -> None:
    """`loud` circles wrap in their second block; gateways 0 and 1 are of one middle, 2 and 3 of another."""
    adder = adder_of(f"exact(0) | flat | rotate_shared | grid({bits})", SIZE, 1e6)
    steps, generator = bytes([100] * adder.num_blocks), np.random.default_rng(seed)
    whole, parts = summed_of(adder, steps), [summed_of(adder, steps) for _ in range(4)]
    for number, members in enumerate(circles):
        clients = range(10 * number, 10 * number + members)
        residues = np.round(generator.normal(0, (1 << bits) / 16, adder.count())).astype(np.int64)
        if number in loud:
            residues[8192:] = generator.integers(0, 1 << bits, SIZE - 8192)
        for total in (whole, parts[where[number]]):
            total.add_circle(residues, clients)
    middles, root = [summed_of(adder, steps) for _ in range(2)], summed_of(adder, steps)
    for number, part in enumerate(parts):
        middles[number // 2].merge(through_bytes(adder, part, 60))
    for middle in reversed(middles):
        root.merge(through_bytes(adder, middle, 60))
    assert (root.count, root.overflowed) == (whole.count, whole.overflowed)
    assert root.mean().tobytes() == whole.mean().tobytes()
    assert root.next_state(None) == whole.next_state(None)


def test_sum_does_not_depend_on_who_is_in_a_circle_with_whom_where_none_wraps() -> None:
    adder = adder_of("exact(0) | flat | rotate_shared | grid(9)", 3000, 100.0)
    updates = [normal(3000, phone) for phone in range(12)]
    steps, means = adder.steps(None, members=12), []
    for row in (range(12), [0, 5, 10, 1, 6, 11, 2, 7, 3, 8, 4, 9]):
        for size in (3, 4, 12):
            total = Summed(adder, KEY, steps=steps, members=12)
            for first in range(0, 12, size):
                clients = list(row)[first : first + size]
                residues = sent(adder, [updates[client] for client in clients], clients, steps)
                assert total.add_circle(residues, clients) == []
            means.append(total.mean().tobytes())
    assert len(set(means)) == 1


def part_of(adder: Summable) -> PartialSum:
    steps = adder.steps(None, members=8)
    total = summed_of(adder, steps)
    total.add_circle(sent(adder, [normal(SIZE, phone) for phone in range(6)], range(6), steps), range(6))
    return total.partial()


ADDER = adder_of("secure-4bit", SIZE, 200.0)
PART = part_of(ADDER)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda part: replace(part, counts=(7, 6)), "block 0 of a partial sum of 6 phones is of 7"),
        (lambda part: replace(part, sums=part.sums + (1 << 40)), "block 0 .* exceeds what 6 phones can have sent"),
        (
            lambda part: replace(part, squares={9: part.squares[6]}, values={9: part.values[6]}),
            "circles of 9, .* for 8",
        ),
        (lambda part: replace(part, squares={6: (1 << 60, 0)}), "block 0 .* has wrapped, and is called whole"),
        (lambda part: replace(part, values={6: (1 << 20, 1 << 20)}), "counts circles of 6 that it has not"),
        (lambda part: replace(part, phones=MOST_PHONES), f"{MOST_PHONES} phones|{MOST_PHONES + 6} phones"),
    ],
)
def test_part_that_no_circles_give_is_refused_and_adds_nothing(
    spoil: Callable[[PartialSum], PartialSum], sentence: str
) -> None:
    root = summed_of(ADDER, ADDER.steps(None, members=8))
    root.merge(PART)
    before = root.mean().tobytes(), root.count, root.next_state(None)
    with pytest.raises(CodecError, match=sentence):
        root.merge(spoil(PART))
    assert (root.mean().tobytes(), root.count, root.next_state(None)) == before


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "partial sum of 0 bytes has no header"),
        (PART.to_bytes(b"round 2.", width=4), "a partial sum of another round, or of a gateway whose --uplink"),
        (PART.to_bytes(OF, width=4)[:-1], "does not hold 1 sizes of circles"),
        (PART.to_bytes(OF, width=4) + b"\0", "does not hold 1 sizes of circles"),
    ],
)
def test_bytes_that_are_no_part_of_this_sum_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(CodecError, match=sentence):
        PartialSum.from_bytes(data, OF, coordinates=SIZE, blocks=2)


@settings(max_examples=200, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 255)), max_size=4), cut=st.integers(0, 40))
def test_any_bytes_are_refused_or_give_finite_means_and_states(places: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(PART.to_bytes(OF, width=4))
    for place, value in places:
        data[place] = value
    steps = ADDER.steps(None, members=8)
    root = summed_of(ADDER, steps)
    try:
        root.merge(PartialSum.from_bytes(bytes(data[: len(data) - (cut == 40)]), OF, coordinates=SIZE, blocks=2))
    except CodecError:
        return
    assert np.isfinite(root.mean()).all()
    assert len(ADDER.steps(root.next_state(None), members=8)) == 2


def test_layout_of_the_bytes_is_as_written() -> None:
    part = PartialSum(5, np.array([1, -2, 300], np.int64), (5,), frozenset({0}), {5: (7,)}, {5: (3,)})
    assert part.to_bytes(OF, width=3).hex() == (
        OF.hex()  # of
        + "0300000000000000" + "0500000000000000" + "01000000" + "01000000" + "03"
        + "0500000000000000" + "01"  # counts, wrapped
        + "05000000" + "07" + 15 * "00" + "0300000000000000"  # circles of five
        + "010000" + "feffff" + "2c0100"
    )  # fmt: skip
