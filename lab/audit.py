"""`python -m lab audit`: the ε that a noised sum has at least, found by attacking it, beside the ε that is claimed.

Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846): m canaries, each in the sum or not by a coin of its own, in one
run. Whoever sees the sum guesses r of the coins, and has v right. Were the run (ε, δ)-differentially private, so many
right guesses would be rare:

    P[right ≥ v] ≤ β + 2mδα,   β = P[W ≥ v],   α = max over i of P[v > W ≥ v − i]/i,   W ~ Bin(r, e^ε/(1 + e^ε))

and the largest ε for which that is below 5 % is a lower bound, with 95 % confidence.

Here a canary is a phone whose update points in a direction of its own, ten clip norms long, through the server's own
way: decoded, clipped, summed, noised (`RoundSum`). Guessed are those whose direction stands out most and least. With
the noise or the clip taken out the same attack must find more than is claimed, or it would show nothing.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from featherfed.server.config import RunConfig

CONFIDENCE = 0.95
CANARIES = 1000
GUESSES = 500
SIZE = 20_000
"""Coordinates: so many that a thousand directions hardly meet."""
MODES = ("as it is", "clip taken out", "noise taken out")


@dataclass(frozen=True, slots=True)
class Attack:
    """How many of its guesses were right, and the bound that follows."""

    guesses: int
    right: int
    bound: float


def chance(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return the most that the chance of so many right guesses can be in an (ε, δ)-private run."""
    masses = _binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    total = alpha = 0.0
    for i in range(1, right + 1):
        total += masses[right - i]
        alpha = max(alpha, total / i)
    return min(1.0, sum(masses[right:]) + 2 * canaries * delta * alpha)


def _binomial(draws: int, share: float) -> list[float]:
    """Return the probability of 0 … `draws` successes."""
    known = [
        math.lgamma(draws + 1) - math.lgamma(k + 1) - math.lgamma(draws - k + 1)
        + k * math.log(share) + (draws - k) * math.log1p(-share)
        for k in range(draws + 1)
    ]  # fmt: skip
    return [math.exp(each) for each in known]


def bound(canaries: int, guesses: int, right: int, delta: float) -> float:
    """Return the ε that a run has at least, with 95 % confidence."""
    low, high = 0.0, 30.0
    if chance(canaries, guesses, right, low, delta) > 1 - CONFIDENCE:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if chance(canaries, guesses, right, middle, delta) < 1 - CONFIDENCE else (low, middle)
        )
    return low


def attack(config: "RunConfig", seed: int, mode: str = MODES[0]) -> Attack:
    """Return what the attack on one round finds; `seed` draws directions and coins, and the noise is what it is."""
    import numpy as np

    from featherfed.codec.layout import Layout, Tensor
    from featherfed.privacy.noise import Noise
    from featherfed.rules.aggregates import Mean
    from featherfed.server.model.round_sum import RoundSum
    from featherfed.server.model.run_rules import uplinks_of

    layout = Layout((Tensor("w", (SIZE,)),))
    total = RoundSum(config, uplinks_of(config), layout, Mean(), max_examples=1)
    if mode == MODES[1]:
        claimed = total.noise
        total = RoundSum(replace(config, clip_norm=1e6), uplinks_of(config), layout, Mean(), max_examples=1)
        total.noise = claimed
    elif mode == MODES[2]:
        total.noise = Noise(1)
    total.open(1)
    generator = np.random.default_rng(seed)
    coins = generator.random(config.phones) < 0.5
    directions = generator.normal(0, 1, (config.phones, SIZE)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for shard in np.flatnonzero(coins):
        total.add(1, int(shard), (directions[shard] * np.float32(10 * config.clip_norm)).astype("<f4").tobytes(), 1)
    (mean,) = total.take_updates().rows
    order = np.argsort(directions @ mean)
    half = GUESSES // 2
    right = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
    return Attack(GUESSES, right, bound(config.phones, GUESSES, right, delta_of(config)))


def delta_of(config: "RunConfig") -> float:
    """Return the δ of the run's account."""
    from featherfed.server.privacy_plan import delta_of

    return delta_of(config)


def attacked(noise_multiplier: float) -> "RunConfig":
    """Return a run of canaries alone, all of whom a round asks."""
    from featherfed.server.config import RunConfig

    return RunConfig(
        phones=CANARIES, cohort=CANARIES, rounds=1, uplink="float32", dp="central", clip_norm=1.0,
        noise_multiplier=noise_multiplier, delta=1e-5,
    )  # fmt: skip


@click.command
@click.option("--seeds", default=20, show_default=True, help="Attacks of each mode.")
@click.option("--noise-multiplier", default=1.0, show_default=True, help="Of the run that is attacked.")
def audit(seeds: int, noise_multiplier: float) -> None:
    """Attack a round with differential privacy by canaries: the ε that it has at least, beside the one it claims."""
    import numpy as np

    from featherfed.privacy.accounting import epsilon

    config = attacked(noise_multiplier)
    claimed = epsilon(1 / (2 * noise_multiplier**2), config.delta)
    click.echo(f"claimed: ε {claimed:.3g} with δ {config.delta:g}, of {CANARIES} canaries")
    for mode in MODES:
        found = [attack(config, seed, mode) for seed in range(seeds)]
        bounds, right = [each.bound for each in found], np.median([each.right for each in found])
        click.echo(
            f"{mode}: {right:.0f} of {GUESSES} guesses right, ε at least {np.median(bounds):.2f}"
            f" ({min(bounds):.2f} … {max(bounds):.2f})"
        )
