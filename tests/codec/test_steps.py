import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.codec import steps
from featherfed.codec.steps import Fit, StepState
from featherfed.errors import CodecError, SpecError


def beyond(z: float) -> float:
    """Return Q(z), the share of normal values above z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def test_table_of_wrapped_values_is_what_the_formula_gives() -> None:
    for number, known in enumerate(steps._WRAPPED):
        z = (number + steps._LEAST_Z) / 10
        assert known == float(f"{8 * z * z * beyond(z):.4g}")


def test_roots_are_eighths_of_an_octave() -> None:
    for eighth, root in enumerate(steps._ROOTS):
        # To the last bit: whoever computes them in another language has the same steps.
        exact = Fraction(2) ** eighth
        low, high = Fraction(math.nextafter(root, 0)), Fraction(math.nextafter(root, 2))
        assert ((low + Fraction(root)) / 2) ** 8 <= exact <= ((high + Fraction(root)) / 2) ** 8


@pytest.mark.parametrize(
    ("members", "bits", "z", "error"),
    [
        (10, 4, 3.35, 0.21),
        (10, 5, 3.85, 0.058),
        (20, 5, 3.6, 0.11),
        (100, 6, 3.55, 0.14),
        (1000, 8, 3.7, 0.088),
    ],
)
def test_best_fit_of_known_circles(members: int, bits: int, z: float, error: float) -> None:
    fit = Fit.of(members, bits)
    assert fit.z == pytest.approx(z, abs=0.06)
    assert fit.error == pytest.approx(error, rel=0.03)


@given(st.integers(0, 255))
def test_a_steps_byte_is_the_one_of_its_size(step: int) -> None:
    size = steps.size_of(step)
    assert steps.byte_of(size) == step
    # What was computed from it and back is the same step; what is larger is the next.
    assert steps.byte_of(math.nextafter(size, math.inf)) == step
    assert steps.byte_of(size * 1.00001) == min(step + 1, 255)


def test_sizes_double_with_every_eight_bytes() -> None:
    assert steps.size_of(192) == 1
    for step in range(248):
        assert steps.size_of(step + 8) == 2 * steps.size_of(step)


@pytest.mark.parametrize("members", [1, 3, 10, 20])
@pytest.mark.parametrize("bits", [5, 8, 12])
@pytest.mark.parametrize("deviation", [1e-4, 0.07, 3.0])
def test_step_is_for_at_least_the_deviation_and_an_eighth_octave_more_at_most(
    members: int, bits: int, deviation: float
) -> None:
    made_for = steps.deviation_for(steps.step_for(deviation, members, bits), members, bits)
    assert deviation * (1 - 1e-8) <= made_for <= deviation * 1.0906


def test_too_many_phones_are_refused_with_what_would_do() -> None:
    with pytest.raises(SpecError) as caught:
        steps.check_members(100, 4)
    assert str(caught.value) == (
        "grid(4) has no room for the sum of 100 phones: the error would be larger than the sum;"
        " use grid(6), or circles of at most 42"
    )
    assert Fit.of(42, 4).error <= 1 < Fit.of(43, 4).error
    assert steps.check_members(100, 6).error < 0.25


@pytest.mark.parametrize(("members", "bits"), [(10, 4), (20, 5), (100, 6)])
def test_first_step_is_for_most_of_what_can_come_and_all_of_it_is_no_overflow(members: int, bits: int) -> None:
    (step,) = set(steps.first(10_000, 1, members, bits))
    assert steps.deviation_for(step, members, bits) >= 0.7 * members / 100 * (1 - 1e-8)
    grid = members * steps.size_of(step) ** 2 / 12
    rms = math.sqrt((members / 100) ** 2 + grid)
    assert rms < steps.OVERFLOW * 2**bits * steps.size_of(step)


def state(*deviations: float, factors: tuple[float, ...] = (), members: int = 10) -> StepState:
    return StepState(8192 * len(deviations), members, deviations, factors or (1.0,) * len(deviations))


def made_for(announced: bytes, members: int = 10, bits: int = 4) -> list[float]:
    return [steps.deviation_for(step, members, bits) for step in announced]


def test_announced_steps_have_a_margin_over_what_was_measured() -> None:
    (large, small) = made_for(state(0.05, 0.005).announced(10, 4))
    assert 0.0525 * (1 - 1e-8) <= large <= 0.0525 * 1.0906
    assert 0.00525 * (1 - 1e-8) <= small <= 0.00525 * 1.0906


def test_a_trend_goes_on() -> None:
    (falling,) = made_for(state(0.1, factors=(0.75,)).announced(10, 4))
    assert 0.07875 * (1 - 1e-8) <= falling <= 0.07875 * 1.0906


def test_no_step_is_for_more_than_the_clip_norm_in_one_block() -> None:
    (first, second) = made_for(state(5.0, 1e-5).announced(10, 4))
    bound = 10 / math.sqrt(8192)
    assert bound * (1 - 1e-8) <= first <= bound * 1.0906
    assert second < 1e-3


@pytest.mark.parametrize(("members", "growth"), [(20, 2.0), (40, 4.0), (5, math.sqrt(0.5))])
def test_steps_for_circles_of_another_size_have_room_for_either_extreme(members: int, growth: float) -> None:
    (expected,) = made_for(state(0.05).announced(members, 6), members, 6)
    assert 0.0525 * growth * (1 - 1e-8) <= expected <= 0.0525 * growth * 1.0906


def follow(before: StepState | None, measured: list[float | None], announced: bytes, wrapped: set[int]) -> StepState:
    size = 8192 * len(measured)
    return StepState.after(before, measured, announced, wrapped, coordinates=size, members=10, bits=4)


def test_a_measured_deviation_is_in_its_steps_and_is_compared_with_the_one_before() -> None:
    before = state(0.01, 0.01, 0.01)
    announced = before.announced(10, 4)
    size = steps.size_of(announced[0])
    after = follow(before, [0.0081 / size, 0.001 / size, 0.02 / size], announced, set())
    assert after.deviations == pytest.approx((0.0081, 0.001, 0.02))
    # Half of a trend goes on, and no more than that of ½ or 4/3.
    assert after.factors == pytest.approx((0.9, math.sqrt(1 / 2), math.sqrt(4 / 3)))


def test_a_block_that_wraps_again_and_again_is_heard_after_few_rounds() -> None:
    now: StepState | None = state(1e-9)
    sizes = []
    for _ in range(6):
        assert now is not None
        announced = now.announced(10, 4)
        sizes.append(made_for(announced)[0])
        now = follow(now, [None], announced, {0})
    assert sizes[0] >= steps.LEAST_SHARE * steps.at_most(10, 8192)
    growth = [after / before for before, after in itertools.pairwise(sizes)]
    assert growth[:4] == pytest.approx([2, 4, 8, 16], rel=0.1)
    # And never more than all of the clip norm in this block.
    assert sizes[-1] <= steps.at_most(10, 8192) * 1.0906
    # What it says once it does not wrap is taken as it is: what the step grew by is no trend.
    after = follow(now, [1.0], announced, set())
    assert after.factors == (1.0,)


def test_a_block_of_which_nothing_came_keeps_its_step() -> None:
    before = state(0.1, 0.02)
    announced = before.announced(10, 4)
    after = follow(before, [None, None], announced, set())
    again = after.announced(10, 4)
    assert all(abs(now - then) <= 1 for now, then in zip(again, announced, strict=True))


def test_other_coordinates_or_members_are_no_trend() -> None:
    announced = state(0.1).announced(10, 4)
    for before in (None, StepState(4096, 10, (9.0,), (1.0,)), StepState(8192, 20, (9.0,), (1.0,))):
        assert follow(before, [1.0], announced, set()).factors == (1.0,)


def test_state_is_stored_to_the_bit() -> None:
    kept = state(0.1, 1 / 3, factors=(0.5, 1.0))
    assert StepState.from_bytes(kept.to_bytes()) == kept


@given(st.binary(max_size=80))
def test_any_bytes_are_a_state_or_are_refused(data: bytes) -> None:
    try:
        kept = StepState.from_bytes(data)
    except CodecError as error:
        assert str(error)
    else:
        assert len(kept.deviations) == len(kept.factors)
