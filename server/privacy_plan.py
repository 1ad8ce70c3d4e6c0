"""What `--dp` makes of a run: its noise, the price of a round, and what it does not go together with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featherfed.codec.pipeline import Pipeline
from featherfed.codec.summed import UNIT_BITS
from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.privacy.accounting import MOST_COORDINATES, apart, epsilon, rho_within
from featherfed.privacy.budget import Budget
from featherfed.privacy.noise import Noise, largest_product, sensitivity
from featherfed.privacy.phones_noise import Promise
from featherfed.rules.aggregates import Mean
from featherfed.rules.ruleset import RuleSet
from featherfed.rules.selections import Uniform
from featherfed.server.config import KNOWN, RunConfig

CENTRAL, DISTRIBUTED = "central", "distributed"
KINDS = (CENTRAL, DISTRIBUTED)
OF_DP = ("noise_multiplier", "target_epsilon", "delta", "participations")
OF_DISTRIBUTED = ("lost", "colluding")
LIKE = "subspace(1024) | grid(10)"
MOST_NOISE = 1000.0
"""A larger noise multiplier would leave nothing of any cohort that there is."""
LEAST_NOISE = 1e-6
"""A smaller one promises nothing (its ε is above 10¹¹), and its square is soon no number."""


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """Noise of `noise_multiplier` × `clip_norm` in each round's sum, and the budget of the phones.

    With a `promise` it is the phones' own, in the sum of each circle.
    """

    noise_multiplier: float
    clip_norm: float
    budget: Budget
    promise: Promise | None = None

    def noise(self, coordinates: int) -> Noise:
        """Return the noise of a sum of so many coordinates."""
        return Noise.of(self.noise_multiplier, self.clip_norm, coordinates)


def privacy_of(config: RunConfig) -> PrivacyPlan | None:
    """Return the plan of a run with `--dp`; raises `ConfigError` for numbers from which none can be made."""
    if not config.dp:
        return None
    delta, times, near = delta_of(config), participations(config), _apart(config)
    z = config.noise_multiplier or _solved(config, times, delta)
    promise = Promise(z, config.colluding) if config.dp == DISTRIBUTED else None
    budget = Budget(1 / (2 * z * z), delta, times, config.target_epsilon, near)
    return PrivacyPlan(z, config.clip_norm, budget, promise)


def _apart(config: RunConfig) -> float | None:
    """Return how near a run's noise is to a Gaussian; None for that of phones, of which a step may be much."""
    if config.dp == DISTRIBUTED:
        return None
    if Pipeline.parse(config.uplink_at(1)).summed:
        # In 2⁻¹⁷ steps, of which C has 2¹⁷ at least, and √d/2 steps are bounded by more (`bounded`).
        return max(apart(2**UNIT_BITS, 1), apart(2**UNIT_BITS * math.sqrt(MOST_COORDINATES) / 2))
    return apart(sensitivity(config.clip_norm, 0))


def participations(config: RunConfig) -> int:
    """Return in how many rounds a phone may be: where nothing is said, in as many as there are for each."""
    return config.participations or -(-places(config) // config.phones)


def places(config: RunConfig) -> int:
    """Return how many updates all rounds want together."""
    wanted = config.by_round(config.closing_updates_at)
    starts = sorted(start for start in {1, *wanted.later} if start <= config.rounds)
    ends = [*starts[1:], config.rounds + 1]
    return sum((end - start) * wanted.at(start) for start, end in zip(starts, ends, strict=True))


def delta_of(config: RunConfig) -> float:
    """Return δ: a tenth of a phone's share where nothing is said; raises `ConfigError` for a whole one or more."""
    delta = config.delta or 1 / (10 * config.phones)
    if not 0 < delta < 1 / config.phones:
        raise ConfigError(
            f"--delta {config.delta:g} is not a number above 0 and below 1/{config.phones}, a phone's share of"
            f" --phones {config.phones}: a rule that betrays one phone entirely would keep it; the usual one is"
            f" {1 / (10 * config.phones):g}"
        )
    return delta


def _solved(config: RunConfig, times: int, delta: float) -> float:
    """Return the least noise multiplier with which a phone may be in so many rounds."""
    near = _apart(config)
    rho = rho_within(config.target_epsilon, delta, apart=near)
    if not rho or (z := math.sqrt(times / (2 * rho))) > MOST_NOISE:
        least = epsilon(times / (2 * MOST_NOISE**2), delta, apart=near)
        raise ConfigError(
            f"--target-epsilon {config.target_epsilon:g} (δ {delta:g}) over {times} rounds of a phone needs a"
            f" --noise-multiplier beyond {MOST_NOISE:g}; the least ε that there is one for is {least:.3g}"
        )
    return z


def check_privacy(config: RunConfig, rules: RuleSet, uplinks: Sequence[Pipeline]) -> None:
    """Raise `ConfigError` for what cannot be had with differential privacy, naming both."""
    for kind, names in ((CENTRAL, OF_DP), (DISTRIBUTED, OF_DISTRIBUTED)):
        given = [name for name in names if getattr(config, name) != KNOWN[name].default]
        if given and (not config.dp or (kind == DISTRIBUTED and config.dp != kind)):
            name = given[0].replace("_", "-")
            raise ConfigError(f"--{name} {getattr(config, given[0]):g} is for a run with --dp {kind}")
    if not config.dp:
        return
    if config.dp not in KINDS:
        raise ConfigError(f"unknown --dp {config.dp!r}{nearest(config.dp, KINDS)}")
    dp = f"--dp {config.dp}"
    if not config.clip_norm:
        raise ConfigError(f"{dp} needs --clip-norm: noise hides a phone only if its update is bounded, like 0.5")
    if not (config.noise_multiplier or config.target_epsilon):
        raise ConfigError(f"{dp} needs --noise-multiplier, like 1, or --target-epsilon, like 8")
    if config.noise_multiplier and not LEAST_NOISE <= config.noise_multiplier <= MOST_NOISE:
        raise ConfigError(
            f"--noise-multiplier {config.noise_multiplier:g} is not a number from {LEAST_NOISE:g} to {MOST_NOISE:g}"
        )
    if config.mode == "async":
        raise ConfigError(
            f"{dp} counts in whose rounds a phone was, and --mode async sums updates of several; use sync"
        )
    if config.gateways:
        raise ConfigError(
            f"{dp} keeps one account of all phones and of every sum, and --gateways {config.gateways} take sums of"
            " their own; leave one out"
        )
    if config.connect == "when-chosen":
        raise ConfigError(
            f"{dp} asks those who have taken part least, which is known when a round opens, and --connect when-chosen"
            " tells phones their rounds beforehand; use --connect always"
        )
    if type(rules.aggregate) is not Mean:
        raise ConfigError(
            f"{dp} knows how far one phone moves a mean of clipped updates, and not how far it moves --aggregate"
            f" {rules.aggregate}; use mean"
        )
    if type(rules.select) is not Uniform:
        raise ConfigError(
            f"{dp} asks those who have taken part least, and --select {rules.select} others; leave one of the two out"
        )
    if config.dp == DISTRIBUTED and not config.secure:
        raise ConfigError(
            f"{dp} has phones add noise to sums, in which the noise of each alone hides little: it needs --secure; or"
            " use --dp central"
        )
    for uplink in uplinks:
        if uplink.summed and uplink.needs_state:
            raise ConfigError(
                f"{dp} rounds what is summed at random by itself, so that --uplink {uplink} has no error to send later;"
                " leave feedback out"
            )
    if config.slices > 1:
        raise ConfigError(
            f"{dp} adds as much noise to a slice as to the whole, and a coordinate of --slices {config.slices} is the"
            f" mean of fewer phones; leave --slices out, and send fewer coordinates, like {LIKE}"
        )
    plan = privacy_of(config)
    assert plan is not None, "it has dp"
    if (product := plan.noise_multiplier * config.clip_norm) > (most := largest_product()):
        raise ConfigError(
            f"--noise-multiplier {plan.noise_multiplier:g} × --clip-norm {config.clip_norm:g} is {product:g}, and a sum"
            f" has room for noise of a deviation up to {most:.3g}"
        )
    budget = plan.budget
    once = epsilon(budget.rho, budget.delta, apart=budget.apart)
    if budget.target and once > budget.target:
        z = math.sqrt(1 / (2 * rho_within(budget.target, budget.delta, apart=budget.apart)))
        raise ConfigError(
            f"one round with --noise-multiplier {plan.noise_multiplier:g} costs ε {once:.3g}, more than"
            f" --target-epsilon {budget.target:g} (δ {budget.delta:g}); {math.ceil(z * 100) / 100:g} is enough for one,"
            " and without --noise-multiplier it is solved for"
        )
