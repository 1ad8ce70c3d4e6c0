"""The sum of a round's circles: exact, unbiased, of the error that the formulas say, the same in any order."""

import math
import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.steps import Fit, StepState, deviation_for, size_of
from featherfed.codec.summable import Summable, dither
from featherfed.codec.summed import Summed
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

from .conftest import normal
from .test_summable import FLAT, LAYOUT, SPECS, steps_of, summable

KEY = RoundKey(7, 3)


def adder_of(spec: str, size: int, clip: float) -> Summable:
    return Summable(Pipeline.parse(spec), Layout((Tensor("x", (size,)),)), clip=clip)


def sent(adder: Summable, updates: Iterable[np.ndarray], clients: Iterable[int], steps: bytes, slice_: int = 0,
         slices: int = 1) -> np.ndarray:  # fmt: skip
    """Return the sum of the residues of a circle, modulo nothing."""
    total = np.zeros(adder.count(slice_, slices), np.int64)
    for update, client in zip(updates, clients, strict=True):
        key = RoundKey(KEY.seed, KEY.round_number, client)
        total += adder.encode(update, key, steps=steps, slice_=slice_, slices=slices).residues
    return total


@pytest.mark.parametrize("spec", SPECS)
def test_mean_of_a_sum_is_the_mean_of_what_phones_sent(spec: str) -> None:
    adder = summable(spec)
    size = adder.pipeline.space(LAYOUT, KEY).size
    updates = [normal(size, seed) for seed in range(3)]
    # Without a quantizer: what the circle's mean is, seen through the same choice of coordinates.
    wanted = adder.pipeline.space(LAYOUT, KEY).expand(
        adder.spread(sum(adder._kept(update, KEY) for update in updates) / np.float32(3), KEY)
    )
    fine = Pipeline.parse(spec.replace(spec.split("grid")[1], "(16)"))
    adder = Summable(fine, LAYOUT, clip=100.0)
    steps = adder.steps(None, members=3)
    summed = Summed(adder, KEY, steps=steps, members=3)
    assert summed.add_circle(sent(adder, updates, range(3), steps), range(3)) == []
    assert summed.count == 3
    assert np.abs(summed.mean() - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_whole_numbers_are_the_sum_to_the_last_bit() -> None:
    """Against Python's own integers, phone by phone and coordinate by coordinate."""
    adder = adder_of("exact(0) | flat | rotate_shared | grid(16)", 1, 8.0)
    steps = bytes([192])
    for values in ((1.0, -2.5, 7.75), (0.0,), (-7.9, -7.9, -7.9, 3.3)):
        clients = range(len(values))
        updates = [np.array([value], np.float32) for value in values]
        summed = Summed(adder, KEY, steps=steps, members=len(values))
        summed.add_circle(sent(adder, updates, clients, steps), clients)
        exact = 0
        for client, update in zip(clients, updates, strict=True):
            drawn = int(dither(RoundKey(KEY.seed, KEY.round_number, client), 1)[0])
            multiple = round(float(update[0]) / 8 * 65536)
            exact += 2 * 65536 * ((multiple + drawn) // 65536) - (2 * drawn + 1) + 65536
        assert summed.mean()[0] == np.float32(exact * (8.0 / (len(values) << 17)))


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("members", [3, 10, 40])
def test_masked_residues_give_the_sum_of_unmasked_ones_bit_for_bit(bits: int, members: int) -> None:
    adder = adder_of(FLAT.format(bits), 700, 100.0)
    updates = [normal(700, seed) for seed in range(members)]
    steps = bytes([150]) * adder.num_blocks
    masks = np.random.default_rng(bits).integers(0, 1 << 16, (members, 700))
    # Each phone's residues are covered, and only the low bits are kept; the sum of masks is taken off in the end.
    covered = [
        (adder.encode(update, RoundKey(7, 3, client), steps=steps).residues + masks[client]) % (1 << bits)
        for client, update in enumerate(updates)
    ]
    opened = (sum(covered) - masks.sum(axis=0)) % (1 << bits)
    means = []
    for residues in (sent(adder, updates, range(members), steps), opened.astype(np.uint16)):
        summed = Summed(adder, KEY, steps=steps, members=1)
        summed.add_circle(residues, range(members))
        means.append(summed.mean().tobytes())
    assert means[0] == means[1]


def test_circles_in_any_order_are_the_same_sum_and_the_same_next_steps() -> None:
    adder = adder_of(FLAT.format(5), 20_000, 300.0)
    steps = adder.steps(None, members=4)
    circles = []
    for number in range(6):
        # Of several sizes, and two a slice.
        clients = list(range(4 * number, 4 * number + 4 - number % 3))
        updates = [normal(20_000, client) for client in clients]
        circles.append((sent(adder, updates, clients, steps, number % 3, 3), clients, number % 3))
    results = set()
    for seed in range(4):
        random.Random(seed).shuffle(circles)
        summed = Summed(adder, KEY, steps=steps, members=4, slices=3)
        for circle in circles:
            summed.add_circle(*circle)
        results.add((summed.mean().tobytes(), summed.next_state(None), summed.overflowed, summed.count))
    assert len(results) == 1


def test_mean_over_dithers_is_the_update() -> None:
    """Unbiased within four standard errors, whatever the value's place between two steps."""
    adder = adder_of(FLAT.format(4), 64, 8.0)
    update, steps = np.linspace(-1, 1, 64).astype(np.float32), steps_of(0.25, adder)
    rotated = adder._kept(update, KEY).astype(np.float64)
    total, rounds = np.zeros(64), 4000
    for client in range(rounds):
        key = RoundKey(KEY.seed, KEY.round_number, client)
        residues = adder.encode(update, key, steps=steps).residues
        summed = Summed(adder, KEY, steps=steps, members=1)
        total += adder._kept(summed_mean(summed, residues, client), KEY)
    errors = total / rounds - rotated
    # Each is off by the mean of `rounds` numbers that are uniform in ±½ step of 2.
    standard = 2 / math.sqrt(12 * rounds)
    assert np.abs(errors).max() < 4 * standard
    assert 0.75 < np.sqrt((errors**2).mean()) / standard < 1.25


def summed_mean(summed: Summed, residues: np.ndarray, client: int) -> np.ndarray:
    summed.add_circle(residues, [client])
    return summed.mean()


def measured_error(members: int, bits: int, deviation: float, seed: int, size: int = 8192 * 4) -> float:
    """Return the error of a sum's mean, over ‖mean‖², where its σ is this share of the fitting one."""
    adder = adder_of(FLAT.format(bits), size, 1e9)
    steps = bytes([60]) * adder.num_blocks
    sigma = deviation_for(60, members, bits) * adder.clip * deviation
    generator = np.random.default_rng(seed)
    updates = generator.standard_normal((members, size)) * (sigma / math.sqrt(members))
    # Exactly of this deviation, so that what is measured is the grid and not the draw.
    updates *= sigma / math.sqrt(float((updates.sum(axis=0) ** 2).mean()))
    summed = Summed(adder, KEY, steps=steps, members=members)
    assert summed.add_circle(sent(adder, list(updates.astype(np.float32)), range(members), steps), range(members)) == []
    wanted = updates.mean(axis=0)
    return float(((summed.mean() - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize(
    ("members", "bits"), [(10, 4), (10, 5), (20, 5), (20, 4), (40, 5), (100, 6), (3, 3), (3, 4), (10, 8), (40, 12)]
)
def test_error_is_what_the_formula_says_within_a_tenth(members: int, bits: int) -> None:
    error = np.mean([measured_error(members, bits, 1.0, seed) for seed in range(2)])
    assert error == pytest.approx(Fit.of(members, bits).error, rel=0.1)


def test_error_of_a_thousand_phones_is_what_the_formula_says() -> None:
    assert measured_error(1000, 8, 1.0, 0, size=8192) == pytest.approx(Fit.of(1000, 8).error, rel=0.1)


def test_a_mean_of_slices_errs_as_its_circles_do() -> None:
    """Ten circles of ten send a tenth each: as many bits as one circle's share, and the mean over ten phones."""
    adder = adder_of(FLAT.format(8), 8192 * 2, 1e6)
    steps = bytes([110]) * adder.num_blocks
    sigma = deviation_for(110, 10, 8) * adder.clip / math.sqrt(10)
    generator = np.random.default_rng(0)
    updates = (generator.standard_normal((100, adder.coordinates)) * sigma).astype(np.float32)
    summed = Summed(adder, KEY, steps=steps, members=10, slices=10)
    for circle in range(10):
        clients = range(10 * circle, 10 * circle + 10)
        summed.add_circle(sent(adder, updates[clients], clients, steps, circle, 10), clients, circle)
    wanted = updates.mean(axis=0)
    error = float(((summed.mean() - wanted) ** 2).sum() / (wanted**2).sum())
    # Independent updates: means over 10 in place of 100 have ten times the variance, nine times of it is error.
    assert error == pytest.approx(9, rel=0.1)


def test_of_a_circle_that_failed_its_slice_is_zero_and_nothing_else() -> None:
    adder = adder_of("subspace(600) | grid(12)", 5000, 50.0)
    steps = adder.steps(None, members=2)
    updates = [normal(600, 1), normal(600, 2)]
    summed = Summed(adder, KEY, steps=steps, members=2, slices=3)
    for slice_ in (0, 2):
        clients = [2 * slice_, 2 * slice_ + 1]
        summed.add_circle(sent(adder, updates, clients, steps, slice_, 3), clients, slice_)
    wanted = (updates[0] + updates[1]) / 2
    wanted[1::3] = 0
    space = adder.pipeline.space(adder.layout, KEY)
    assert np.abs(space.expand(wanted) - summed.mean()).max() < 1e-2


def test_a_sum_of_nobody_is_zero() -> None:
    adder = summable("secure-4bit")
    summed = Summed(adder, KEY, steps=adder.steps(None, members=10), members=10)
    assert not summed.mean().any()
    assert (summed.count, summed.overflowed) == (0, ())
    assert len(adder.steps(summed.next_state(None), members=10)) == adder.num_blocks


def test_a_block_that_wrapped_counts_as_nothing_and_has_twice_the_step_next_time() -> None:
    adder = adder_of(FLAT.format(4), 8192 * 3, 1000.0)
    small = adder.steps(None, members=1)
    steps = bytes([small[0], small[1] - 60, small[2]])
    update = normal(8192 * 3)
    summed = Summed(adder, KEY, steps=steps, members=1)
    assert summed.add_circle(sent(adder, [update], [0], steps), [0]) == [1]
    assert summed.overflowed == (1,)
    mean = summed.mean()
    assert not mean[8192:16384].any()
    assert mean[:8192].any() and mean[16384:].any()
    after = adder.steps(summed.next_state(None), members=1)
    assert after[1] == steps[1] + 8
    assert after[0] < steps[0]


def test_one_circle_that_wrapped_leaves_the_others() -> None:
    adder = adder_of(FLAT.format(6), 8192, 1000.0)
    steps = steps_of(2**-13, adder)
    calm, wild = normal(8192), 300 * normal(8192, 1)
    summed = Summed(adder, KEY, steps=steps, members=2)
    assert summed.add_circle(sent(adder, [calm, calm], [0, 1], steps), [0, 1]) == []
    alone = summed.mean()
    assert summed.add_circle(sent(adder, [wild, wild], [2, 3], steps), [2, 3]) == [0]
    assert np.array_equal(summed.mean(), alone)
    assert summed.overflowed == (0,)


@pytest.mark.parametrize("members", [3, 10, 40])
def test_next_steps_are_for_the_sums_deviation_with_a_margin(members: int) -> None:
    adder = adder_of(FLAT.format(6), 8192 * 2, 1000.0)
    steps = adder.steps(None, members=members)
    updates = [normal(8192 * 2, seed) for seed in range(members)]
    updates = [np.concatenate([update[:8192], update[8192:] / 5]) for update in updates]
    summed = Summed(adder, KEY, steps=steps, members=members)
    summed.add_circle(sent(adder, updates, range(members), steps), range(members))
    state = summed.next_state(None)
    true = np.array([math.sqrt(members), math.sqrt(members) / 5]) / adder.clip
    # At first a step is as large as some 30 deviations here: of the smaller block not more than the floor is seen.
    floor = 0.2 * math.sqrt(members / 12) * size_of(steps[0])
    assert state.deviations == pytest.approx(np.maximum(true, floor), rel=0.1)
    assert state.factors == (1.0, 1.0)
    for _ in range(2):
        steps = adder.steps(state, members=members)
        summed = Summed(adder, KEY, steps=steps, members=members)
        assert summed.add_circle(sent(adder, updates, range(members), steps), range(members)) == []
        state = summed.next_state(state)
    assert state.deviations == pytest.approx(true, rel=0.05)


def test_a_circle_that_lost_phones_stands_for_a_whole_one() -> None:
    adder = adder_of(FLAT.format(8), 8192, 1000.0)
    same = normal(8192)
    steps = adder.steps(None, members=10)
    summed = Summed(adder, KEY, steps=steps, members=10)
    summed.add_circle(sent(adder, [same] * 5, range(5), steps), range(5))
    (deviation,) = summed.next_state(None).deviations
    assert deviation * adder.clip == pytest.approx(10, rel=0.05)


def test_a_sum_of_another_length_is_refused() -> None:
    adder = summable("subspace(100) | grid(4)")
    summed = Summed(adder, KEY, steps=b"\x80", members=10, slices=3)
    with pytest.raises(CodecError, match="33 coordinates of slice 1"):
        summed.add_circle(np.zeros(34, np.int64), range(10), 1)
    assert summed.count == 0


def test_a_sum_of_no_phones_is_refused() -> None:
    adder = summable("subspace(100) | grid(4)")
    with pytest.raises(CodecError, match="slice 0 is that of no phone"):
        Summed(adder, KEY, steps=b"\x80", members=10).add_circle(np.ones(100, np.int64), [])


def test_a_phone_never_counts_twice() -> None:
    adder = summable("subspace(100) | grid(4)")
    summed = Summed(adder, KEY, steps=b"\x80", members=10)
    with pytest.raises(CodecError, match="twice"):
        summed.add_circle(np.zeros(100, np.int64), [1, 2, 1])
    summed.add_circle(np.zeros(100, np.int64), [1, 2, 3])
    with pytest.raises(CodecError, match=r"\[3\]"):
        summed.add_circle(np.zeros(100, np.int64), [3, 4])
    assert summed.count == 3


def test_steps_of_another_model_are_refused() -> None:
    with pytest.raises(CodecError, match="2 steps came for 1 blocks"):
        Summed(summable("secure-4bit"), KEY, steps=b"\x80\x80", members=3)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 16),
    size=st.integers(1, 300),
    members=st.integers(1, 5),
    slices=st.integers(1, 4),
    step=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_any_residues_give_finite_means_and_states(
    bits: int, size: int, members: int, slices: int, step: int, seed: int
) -> None:
    adder = adder_of(FLAT.format(max(bits, 4)), size, 1.0)
    slices = min(slices, size)
    summed = Summed(adder, KEY, steps=bytes([step]), members=members, slices=slices)
    generator = np.random.default_rng(seed)
    for slice_ in range(slices):
        clients = range(members * slice_, members * slice_ + members)
        residues = generator.integers(-(1 << 40), 1 << 40, adder.count(slice_, slices))
        summed.add_circle(residues, clients, slice_)
    assert np.isfinite(summed.mean()).all()
    state = summed.next_state(None)
    assert StepState.from_bytes(state.to_bytes()) == state
    assert len(adder.steps(state, members=members)) == 1


def test_a_run_of_falling_updates_never_wraps_and_its_steps_follow() -> None:
    """Norms that fall to a third at once and then slowly, as in a run's first rounds: no block wraps."""
    adder = adder_of("secure-4bit", 8192 * 2, 1.5 * math.sqrt(8192 * 2))
    state: StepState | None = None
    errors = []
    for number in range(6):
        scale = 0.4 ** min(number, 1) * 0.9**number
        updates = [scale * (normal(8192 * 2, 50) + normal(8192 * 2, 10 * number + phone)) / 2 for phone in range(10)]
        steps = adder.steps(state, members=10)
        summed = Summed(adder, KEY, steps=steps, members=10)
        assert summed.add_circle(sent(adder, updates, range(10), steps), range(10)) == []
        wanted = np.mean(updates, axis=0)
        errors.append(float(((summed.mean() - wanted) ** 2).sum() / (wanted**2).sum()))
        state = summed.next_state(state)
    # 0.21 at best, more with a margin and steps of eighths of an octave; the second round's step is still the first's.
    assert max(errors[2:]) < 0.33
