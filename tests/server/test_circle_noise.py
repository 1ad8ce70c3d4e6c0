"""How sums of circles get noise: which steps a run has, what a grid has room for, what the server adds."""

import contextlib
import random
from typing import Any

import numpy as np
import pytest

from featherfed.codec.summable import Summable
from featherfed.codec.summed import UNIT_BITS
from featherfed.errors import ConfigError
from featherfed.privacy.accounting import Price
from featherfed.privacy.bounded import Bound
from featherfed.privacy.noise import Noise
from featherfed.server.circle_noise import FINE_EXCESS, CircleNoise
from featherfed.server.circle_plan import clip_of, plan_of
from featherfed.server.config import RunConfig, config_from
from featherfed.server.model.circle_sums import CircleSums
from featherfed.server.model.run_rules import check_rules, uplinks_of
from featherfed.server.privacy_plan import privacy_of
from tests.layouts import LAYOUTS

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

LAYOUT = LAYOUTS["tiny"]
RUN: dict[str, Any] = {
    "phones": 200, "cohort": 100, "rounds": 20, "dp": "distributed", "secure": True, "circle": 30, "clip_norm": 0.5,
    "noise_multiplier": 1.0, "uplink": "subspace(1024) | grid(10)", "delta": 1e-4,
}  # fmt: skip


def noise_of(**changes: Any) -> CircleNoise:
    config = config_from({**RUN, **changes})
    check_rules(config)
    privacy = privacy_of(config)
    assert privacy is not None
    summable = Summable(uplinks_of(config).first, LAYOUT, clip=clip_of(config))
    return CircleNoise.of(privacy, summable, plan_of(config, 1), asked=config.cohort_size_at(1))


def test_circles_of_a_distributed_run_are_opened_with_the_survivors_that_the_noise_needs() -> None:
    noise = noise_of()
    assert (noise.plan.most, noise.plan.survivors(34), noise.plan.survivors(10), noise.plan.survivors(5)) == (
        34,
        31,
        9,
        5,
    )
    assert noise_of(lost=0.0).plan.survivors(34) == 34
    # Masks need 21 of them in any case.
    assert noise_of(lost=0.9).plan.survivors(34) == 21
    assert noise_of(dp="central", uplink="subspace(1024) | grid(10)").plan.survivors(34) == 21


def test_sum_is_paid_for_when_it_can_be_opened_where_phones_add_the_noise() -> None:
    noise = noise_of()
    paid = noise.price(34, 31)
    assert paid is not None and 0.48 < paid.rho <= 0.5
    assert noise.noise() is None and noise.sigma(34) > 1
    central = noise_of(dp="central")
    assert central.price(34, 31) is None and central.sigma(34) == 0


@pytest.mark.parametrize("dp", ["central", "distributed"])
@pytest.mark.parametrize("bits", [2, 6, 7])
def test_grid_that_is_too_narrow_is_refused_with_one_that_is_not(dp: str, bits: int) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"grid\({bits}\) has no room for the sum of \d+ phones .*; use --uplink \"subspace\(1024\) \| grid\(",
    ) as told:
        noise_of(dp=dp, uplink=f"subspace(1024) | grid({bits})")
    enough = int(str(told.value).rpartition("grid(")[2].rstrip(')"'))
    assert noise_of(dp=dp, uplink=f"subspace(1024) | grid({enough})").fitted.excess <= FINE_EXCESS
    with contextlib.suppress(ConfigError):
        assert noise_of(dp=dp, uplink=f"subspace(1024) | grid({enough - 1})").fitted.excess > FINE_EXCESS


def test_colluders_who_leave_no_noise_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"--colluding 0\.9 leaves nobody whose noise can be counted on in a circle of"
    ):
        noise_of(colluding=0.9)


def test_noise_that_no_grid_has_room_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no room for the sum of 34 phones with the noise of"):
        noise_of(noise_multiplier=1000.0)


def sums_of(**changes: Any) -> CircleSums:
    config = RunConfig(**{**RUN, "dp": "central", "uplink": "exact(0) | flat | rotate_shared | grid(10)", **changes})
    sums = CircleSums.of(config, uplinks_of(config), LAYOUT)
    assert sums is not None
    sums.open(1)
    return sums


def test_phone_moves_what_is_noised_by_what_it_adds_whatever_others_have_sent() -> None:
    """Others could fill a circle's sum to the brim, so that one step more turned it over before any noise."""
    sums = sums_of()
    total = sums._sum
    assert total is not None
    count, draw = sums.uplink.first.coordinates, np.random.default_rng(0)
    others, own = draw.integers(0, 1024, (2, count)), draw.integers(-5, 6, count)
    held = []
    for added in (0, own):
        sums.open(1)
        for circle in range(2):
            sums.add(circle, (others[circle] + (added if circle else 0)) % 1024, (2 * circle, 2 * circle + 1))
        total = sums._sum
        assert total is not None
        total.disturb(lambda size: np.random.default_rng(1).integers(-(1 << 40), 1 << 40, size))
        held.append(total._sums[0])
    assert not ((held[1] - held[0] - own * (1 << UNIT_BITS)) % (1024 << UNIT_BITS)).any()


def _size(sums: CircleSums) -> float:
    from featherfed.codec.steps import size_of

    assert len(set(sums.steps)) == 1
    return size_of(sums.steps[0])


def test_variance_of_the_mean_is_that_of_the_multiplier_whatever_the_number_of_circles() -> None:
    """Within 5 %: of 7,946 coordinates in three rounds."""
    errors = []
    for seed in range(3):
        sums = sums_of(noise_multiplier=1.5, uplink="exact(0) | flat | rotate_shared | grid(12)")
        assert sums.servers_noise is not None
        sums.servers_noise = Noise(sums.servers_noise.sigma, random.Random(seed).randbytes)
        for circle in range(3):
            shards = tuple(range(33 * circle, 33 * circle + 33))
            sums.add(circle, np.zeros(sums.uplink.first.coordinates, np.int64), shards)
        (mean,) = sums.take().rows
        errors.append(mean)
    bound = Bound(_size(sums), sums.uplink.first.coordinates)
    wanted = 1.5 * bound.sensitivity * bound.step * 0.5 / 100
    assert np.std(errors) == pytest.approx(wanted, rel=0.05)
    assert 1.5 * 0.5 / 100 <= wanted < 1.1 * 1.5 * 0.5 / 100


def test_steps_never_follow_from_sums() -> None:
    sums = sums_of()
    first = sums.steps
    sums.add(0, np.full(sums.uplink.first.coordinates, 200), tuple(range(34)))
    sums.take()
    sums.open(2)
    assert sums.steps == first and sums.saved() == {}


def test_price_of_a_round_without_privacy_is_none() -> None:
    config = RunConfig(phones=10, cohort=10, uplink="secure-4bit")
    sums = CircleSums.of(config, uplinks_of(config), LAYOUT)
    assert sums is not None and sums.price(1, 10, 10) is None and sums.promise is None
    assert Price(0.0) == Price(0.0, 0.0)
