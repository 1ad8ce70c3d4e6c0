"""What a run with differential privacy says of its plan before it begins."""

import math

from featherfed.server.config import RunConfig
from featherfed.server.model.run_model import RunModel
from featherfed.server.privacy_plan import places, privacy_of


def privacy_note(config: RunConfig, model: RunModel) -> str | None:
    """Return a sentence of noise, account and bytes; None for a run without differential privacy."""
    plan = privacy_of(config)
    if plan is None:
        return None
    budget, sums = plan.budget, model.sum
    bits = 8 * sums.theory_bytes.first / model.parameters
    circles = sums.circles
    noise = None if circles is None else circles.noise_of(1)
    asked = config.closing_updates_at(1)
    length = plan.noise_multiplier * math.sqrt(model.parameters) / asked if noise is None else noise.length(asked)
    most, there = budget.participations, budget.participations * config.phones
    # Told before the first of them is spent, and not when the run pauses.
    wanted, short = places(config), ""
    if there < wanted:
        short = f", {there:,} of the {wanted:,} updates that --rounds {config.rounds} want: the run pauses after them"
    return (
        f"--dp {config.dp}: noise of {plan.noise_multiplier:.4g} times what a phone moves a sum by, each in at most"
        f" {most} round{'' if most == 1 else 's'}{short}: ε is at most {budget.most_epsilon:.3g}, δ {budget.delta:.3g};"
        f" {'' if noise is None else f'{noise}; '}in the mean of {asked} updates the noise is about {length:.2g} clip"
        f" norms long; {bits:.3g} bits a weight up"
    )
