"""The rules of one run, and what of them does not go together."""

from dataclasses import dataclass

from featherfed.codec.pipeline import Pipeline
from featherfed.errors import ConfigError
from featherfed.rules.aggregate import Aggregate
from featherfed.rules.select import Select
from featherfed.rules.server_optimizer import ServerOptimizer


@dataclass(frozen=True, slots=True)
class RuleSet:
    """How updates become one, how the server steps by it, and who is asked."""

    aggregate: Aggregate
    server_optimizer: ServerOptimizer
    select: Select

    def check(
        self, uplink: Pipeline, *, asynchronous: bool, gateways: int, min_updates: int, beforehand: bool = False
    ) -> None:
        """Raise `ConfigError` for two that do not go together, by what they declare, naming both and the way out.

        `beforehand` is whether phones are told their rounds before these open.
        """
        rule, name = self.aggregate, f"--aggregate {self.aggregate}"
        if rule.needs_all and rule.mergeable:
            raise ConfigError(
                f"{name} says that it needs all updates and that sums can be merged; only one can be true"
            )
        if asynchronous and rule.needs_all:
            raise ConfigError(
                f"{name} needs all of a round's updates, trained on one version, and --mode async has them of several,"
                " of which old ones weigh less; leave one of the two out"
            )
        if gateways and not rule.mergeable:
            raise ConfigError(
                f"{name} cannot be made of partial sums, which are all that --gateways {gateways} hand up;"
                " leave one of the two out"
            )
        if gateways and not self.select.separable:
            raise ConfigError(
                f"--select {self.select} chooses among all phones, and --gateways {gateways} know only their own;"
                " leave one of the two out"
            )
        if beforehand and self.select.uses_facts:
            raise ConfigError(
                f"--select {self.select} chooses by what is known of phones when a round opens, and --connect"
                " when-chosen tells them their rounds beforehand; leave one of the two out"
            )
        if rule.compares and uplink.leaves_zeros:
            raise ConfigError(
                f"{name} compares updates, which are zero in most coordinates with --uplink {uplink}; choose an uplink"
                " that sends all of them, or --aggregate mean with --clip-norm"
            )
        if min_updates < rule.least_updates and not gateways:
            raise ConfigError(
                f"{name} needs at least {rule.least_updates} updates, and --min-updates {min_updates} lets a round"
                f" close with fewer; say --min-updates {rule.least_updates}"
            )
