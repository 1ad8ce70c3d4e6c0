"""The audit: its bound holds for what is private, and its attack sees what is not."""

import math

import numpy as np
import pytest

from featherfed.privacy.accounting import epsilon
from featherfed.server.privacy_plan import privacy_of
from lab.audit import CANARIES, GUESSES, MODES, attack, attack_circles, attacked, bound, chance

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")


def test_bound_is_above_the_truth_in_no_more_than_a_twentieth_of_all_cases() -> None:
    """Randomized response tells each coin with the odds e^ε, and no attack on it can be better."""
    truth, guesses = 1.5, 200
    right = np.random.default_rng(0).binomial(guesses, 1 / (1 + math.exp(-truth)), 1000)
    bounds = {int(each): bound(CANARIES, guesses, int(each), 0.0) for each in set(right)}
    above = sum(bounds[int(each)] > truth for each in right)
    # A twentieth, and four standard errors.
    assert 0 < above <= 50 + 4 * math.sqrt(50)


def test_chance_falls_with_right_guesses_and_grows_with_delta() -> None:
    chances = [chance(1000, 100, right, 1.0, 1e-5) for right in range(60, 101, 5)]
    assert chances == sorted(chances, reverse=True)
    assert chance(1000, 100, 90, 1.0, 1e-3) > chance(1000, 100, 90, 1.0, 0.0)
    assert bound(1000, 100, 50, 0.0) == 0


def test_attack_finds_less_than_is_claimed_and_not_nothing() -> None:
    config = attacked(1.0)
    plan = privacy_of(config)
    assert plan is not None
    claimed = plan.budget.most_epsilon
    assert claimed < epsilon(0.5, config.delta)
    for seed in range(3):
        assert 0.5 < attack(config, seed).bound <= claimed
    assert 0.5 < attack_circles(attacked(1.0, "distributed"), 0).bound <= claimed


@pytest.mark.parametrize("mode", MODES[1:])
def test_attack_finds_more_than_is_claimed_where_a_part_is_taken_out(mode: str) -> None:
    config = attacked(1.0)
    for found in (attack(config, 0, mode), attack_circles(attacked(1.0, "distributed"), 0, mode)):
        assert found.right == GUESSES and found.bound > epsilon(0.5, config.delta)
