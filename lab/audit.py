"""`python -m lab audit`: the ε that a noised sum has at least, found by attacking it, beside the ε that is claimed.

Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846): m canaries, each in the sum or not by a coin of its own, in one
run. Whoever sees the sum guesses r of the coins, and has v right. Were the run (ε, δ)-differentially private, so many
right guesses would be rare:

    P[right ≥ v] ≤ β + 2mδα,   β = P[W ≥ v],   α = max over i of P[v > W ≥ v − i]/i,   W ~ Bin(r, e^ε/(1 + e^ε))

and the largest ε for which that is below 5 % is a lower bound, with 95 % confidence.

Here a canary is a phone whose update points in a direction of its own, ten clip norms long, through the server's own
way: decoded, clipped, summed, noised (`RoundSum`). Guessed are those whose direction stands out most and least. With
the noise or the clip taken out the same attack must find more than is claimed, or it would show nothing.

Where phones add the noise (`--dp distributed`) what is attacked is what a server sees: the sum of each circle, of as
few survivors as there may be, of whom as many collude as may. These subtract what they sent, so that the canaries are
the others, each noised by its own way (`private_residues`); masks, which fall out of a sum to the bit, are left out.
"""

import math
import os
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
CIRCLE_SIZE = 4000
"""The same where no more directions meet than a circle has."""
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


def attack_circles(config: "RunConfig", seed: int, mode: str = MODES[0]) -> Attack:
    """Return what the attack on one round of circles finds, whose phones add the noise."""
    import numpy as np

    from featherfed.codec.layout import Layout, Tensor
    from featherfed.codec.stage import I64
    from featherfed.codec.summable import Summable
    from featherfed.codec.summed import Summed
    from featherfed.edge_client.private_update import private_residues
    from featherfed.privacy.discrete_gaussian import DiscreteGaussian
    from featherfed.randomness import RoundKey
    from featherfed.server.circle_plan import plan_of
    from featherfed.server.model.circle_sums import CircleSums
    from featherfed.server.model.run_rules import uplinks_of
    from featherfed.wire.messages import Circle, Welcome

    layout = Layout((Tensor("w", (CIRCLE_SIZE,)),))
    sums = CircleSums.of(config, uplinks_of(config), layout)
    assert sums is not None and sums.promise is not None, "a run whose phones add noise to sums of circles"
    sums.open(1)
    noise, summable, plan = sums.noise_of(1), sums.uplink.first, plan_of(config, 1)
    assert noise is not None, "it has a promise"
    members = plan.members(config.cohort)
    least, z, colluding = plan.survivors(members), *sums.promise.numbers
    honest = sums.promise.honest(least, members)
    canaries = config.cohort // members * honest
    generator = np.random.default_rng(seed)
    coins = generator.random(canaries) < 0.5
    scores = np.empty(canaries)
    for first in range(0, canaries, honest):
        directions = generator.normal(0, 1, (honest, CIRCLE_SIZE)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shards = range(first, first + honest)
        asked = Circle(1, 0, 0, 0, 1, 1, least, sums.steps, list(range(members)))
        total: I64 = np.zeros(summable.count(), np.int64)
        for place, shard in enumerate(shards):
            update = directions[place] * np.float32(10 * config.clip_norm * coins[shard])
            if mode == MODES[1]:
                far = Summable(summable.pipeline, layout, clip=1e6).values(update, RoundKey(config.seed, 1, shard))
                whole = far / (config.clip_norm * noise.fitted.bound.step)
                total += np.rint(whole).astype(np.int64) + DiscreteGaussian(noise.sigma(members)).draw(len(total))
                continue
            told = Welcome(
                "run", "audit", "iid", shard, canaries, config.seed, 1, 20, config.uplink, config.downlink, [],
                masked=True, clip=config.clip_norm, bounded=True, noise=0 if mode == MODES[2] else z,
                colluding=colluding,
            )  # fmt: skip
            total += private_residues(summable, update, asked, told, os.urandom)
        summed = Summed(summable, RoundKey(config.seed, 1), steps=sums.steps, members=members, private=True)
        summed.add_circle(total, tuple(shards))
        scores[first : first + honest] = directions @ summed.mean(1)
    order, half = np.argsort(scores), GUESSES // 2
    right = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
    return Attack(GUESSES, right, bound(canaries, GUESSES, right, delta_of(config)))


def delta_of(config: "RunConfig") -> float:
    """Return the δ of the run's account."""
    from featherfed.server.privacy_plan import delta_of

    return delta_of(config)


def attacked(noise_multiplier: float, dp: str = "central") -> "RunConfig":
    """Return a run of canaries alone, all of whom a round asks."""
    from featherfed.server.config import RunConfig

    distributed = dp == "distributed"
    return RunConfig(
        phones=CANARIES, cohort=CANARIES, rounds=1, dp=dp, clip_norm=1.0, noise_multiplier=noise_multiplier, delta=1e-5,
        uplink="exact(0) | flat | rotate_shared | grid(12)" if distributed else "float32", secure=distributed,
        circle=40,
    )  # fmt: skip


@click.command
@click.option("--seeds", default=20, show_default=True, help="Attacks of each mode.")
@click.option("--noise-multiplier", default=1.0, show_default=True, help="Of the run that is attacked.")
@click.option(
    "--dp",
    type=click.Choice(["central", "distributed"]),
    default="central",
    show_default=True,
    help="Who adds the noise.",
)
def audit(seeds: int, noise_multiplier: float, dp: str) -> None:
    """Attack a round with differential privacy by canaries: the ε that it has at least, beside the one it claims."""
    import numpy as np

    from featherfed.server.privacy_plan import privacy_of

    config = attacked(noise_multiplier, dp)
    attack_one = attack if dp == "central" else attack_circles
    plan = privacy_of(config)
    assert plan is not None, "it has --dp"
    claimed = plan.budget.most_epsilon
    click.echo(f"claimed: ε {claimed:.3g} with δ {config.delta:g}, of {CANARIES} canaries")
    for mode in MODES:
        found = [attack_one(config, seed, mode) for seed in range(seeds)]
        bounds, right = [each.bound for each in found], np.median([each.right for each in found])
        click.echo(
            f"{mode}: {right:.0f} of {GUESSES} guesses right, ε at least {np.median(bounds):.2f}"
            f" ({min(bounds):.2f} … {max(bounds):.2f})"
        )
