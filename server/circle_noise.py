"""Noise where circles are summed before they are decoded: a run's steps, who adds how much of it, what a sum costs."""

import math
from dataclasses import dataclass

from featherfed.codec.grid import MOST_BITS
from featherfed.codec.summable import Summable
from featherfed.codec.summed import UNIT_BITS
from featherfed.errors import ConfigError
from featherfed.privacy.accounting import Price
from featherfed.privacy.noise import Noise
from featherfed.privacy.phones_noise import Fitted, Promise, fit_phones_noise, fit_servers_noise
from featherfed.server.circle_plan import CirclePlan
from featherfed.server.privacy_plan import PrivacyPlan

MOST_EXCESS = 2.0
"""A grid whose steps make the variance of a sum larger than so many times what it has to be is refused."""
FINE_EXCESS = 1.25
"""One that is named in its place makes it at most so many times as large, if there is one."""


@dataclass(frozen=True, slots=True)
class CircleNoise:
    """Of the rounds that deal their circles by `plan`; with a `promise` phones add it, otherwise the server."""

    fitted: Fitted
    plan: CirclePlan
    noise_multiplier: float
    promise: Promise | None

    @classmethod
    def of(cls, privacy: PrivacyPlan, summable: Summable, plan: CirclePlan, *, asked: int) -> "CircleNoise":
        """Return it, for rounds that ask so many phones; raises `ConfigError` where a grid has too few bits."""
        coordinates, members, bits = summable.coordinates, plan.most, summable.bits
        promise, z = privacy.promise, privacy.noise_multiplier

        if promise is not None:
            for size in range(plan.least, members + 1):
                if promise.honest(plan.survivors(size), size) < 1:
                    raise ConfigError(
                        f"--colluding {promise.colluding:g} leaves nobody whose noise can be counted on in a circle of"
                        f" {size} that is opened with {plan.survivors(size)} survivors; 0.1 is the usual share"
                    )

        def fitted(bits: int) -> Fitted | None:
            if promise is None:
                return fit_servers_noise(z, coordinates, asked, bits)
            return fit_phones_noise(promise, coordinates, members, plan.survivors(members), bits)

        found = fitted(bits)
        if found is None or found.excess > MOST_EXCESS:
            wider = [(more, fit) for more in range(bits + 1, MOST_BITS + 1) if (fit := fitted(more)) is not None]
            fine = [more for more, fit in wider if fit.excess <= FINE_EXCESS]
            best = fine[0] if fine else min(wider, key=lambda each: each[1].excess, default=(0, None))[0]
            way_out = (
                f'use --uplink "{str(summable.pipeline).replace(f"grid({bits})", f"grid({best})")}"'
                if best
                else "use less noise, or smaller circles (--circle)"
            )
            times = "" if found is None else f": its variance would be {found.excess:.3g} times what it has to be"
            summed = asked if promise is None else members
            raise ConfigError(
                f"{summable.pipeline} has no room for the sum of {summed} phones with the noise of"
                f" Z = {z:.3g} in {coordinates} coordinates{times}; {way_out}"
            )
        return cls(found, plan, z, promise)

    def steps(self, blocks: int) -> bytes:
        """Return the steps of a round, a byte a block: all alike, and from no sum."""
        return bytes([self.fitted.step]) * blocks

    def sigma(self, members: int) -> int:
        """Return what deviation each phone of a circle adds, in steps; 0 where phones add none."""
        if self.promise is None:
            return 0
        return self.promise.sigma(self.fitted.bound, self.plan.survivors(members), members)

    def price(self, members: int, survivors: int) -> Price | None:
        """Return what the sum of a circle costs each of its survivors once it can be opened.

        None where the server adds the noise, and a sum is charged for when its round is closed.
        """
        if self.promise is None:
            return None
        return self.promise.price(self.fitted.bound, self.sigma(members), survivors, members)

    def length(self, asked: int) -> float:
        """Return how long the noise in the mean of so many updates is, about, in clip norms."""
        bound = self.fitted.bound
        sigma = self.noise_multiplier * bound.sensitivity
        if self.promise is not None:
            sigma = self.sigma(self.plan.members(asked)) * math.sqrt(asked)
        return sigma * math.sqrt(bound.coordinates) / (asked * bound.clip_steps)

    def noise(self) -> Noise | None:
        """Return what the server adds to a round's sum, in units of `featherfed.codec.summed`; None where phones do."""
        if self.promise is not None:
            return None
        return Noise(math.ceil(self.noise_multiplier * self.fitted.bound.sensitivity * (1 << UNIT_BITS)))

    def __str__(self) -> str:
        bound, members = self.fitted.bound, self.plan.most
        steps = f"{_steps(bound.clip_steps)} steps to a clip norm"
        steps += f", a phone moves a sum by {_steps(bound.sensitivity)} at most"
        if self.promise is None:
            return f"{steps}; the server adds noise of {_steps(self.noise_multiplier * bound.sensitivity)} steps"
        least = self.plan.survivors(members)
        honest = self.promise.honest(least, members)
        return (
            f"{steps}; each phone adds noise of {_steps(self.sigma(members))}; a circle of {members} is opened with"
            f" {least} survivors, and the noise of {honest} is counted on"
        )


def _steps(number: float) -> str:
    """Return a number of steps for people: whole with its thousands apart, or where it is small with three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
