"""What a run may say of a phone, and what it has said: in rounds that its update was in, and in ρ of zCDP.

Each round costs those whose updates are in its sum the same ρ = 1/2Z², or less where more phones than had to have added
noise to it (`phones_noise`). Whom a round asks is public, so nobody's price
is less for the chance of not having been asked; instead those are asked who have taken part least, and nobody more
often than `participations`, or beyond the ρ that `target` implies.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from featherfed.privacy.accounting import Price, epsilon, rho_within

SLACK = 1e-9
"""How much, relatively, sums of ρ in floats may be off."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one phone has paid: so many rounds, and ρ and ξ (`accounting`)."""

    rounds: int = 0
    rho: float = 0.0
    xi: float = 0.0


NOTHING = Spent()


@dataclass(frozen=True, slots=True)
class Account:
    """What phones have paid, by shard; those who have paid nothing are not in it."""

    phones: Mapping[int, Spent] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, shard: int) -> Spent:
        """Return what the phone of a shard has paid."""
        return self.phones.get(shard, NOTHING)

    def charged(self, shards: Iterable[int], price: Price) -> "Account":
        """Return the account after a release that had updates of these shards."""
        news = {
            shard: Spent(old.rounds + 1, old.rho + price.rho, old.xi + price.xi) for shard, old in self._each(shards)
        }
        return Account(MappingProxyType({**self.phones, **news}))

    def _each(self, shards: Iterable[int]) -> Iterable[tuple[int, Spent]]:
        return ((shard, self.of(shard)) for shard in shards)

    @property
    def most(self) -> Price:
        """The ρ of whoever has paid most, and the largest ξ."""
        paid = self.phones.values()
        return Price(max((each.rho for each in paid), default=0.0), max((each.xi for each in paid), default=0.0))


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a round costs, `rho`, and what nobody pays beyond: so many rounds, and an ε of `target` (0: any).

    The ε is that with `delta`; `apart` says how near the rounds' noise is to a Gaussian (`accounting`).
    """

    rho: float
    delta: float
    participations: int
    target: float = 0.0
    apart: float | None = None

    def allows(self, account: Account, shard: int) -> bool:
        """Return whether the phone of a shard may be in one more round."""
        spent = account.of(shard)
        return spent.rounds < self.participations and spent.rho + self.rho <= self._most() * (1 + SLACK)

    def _most(self) -> float:
        return _rho_within(self.target, self.delta, apart=self.apart) if self.target else math.inf

    def left(self, account: Account, shards: Iterable[int]) -> list[int]:
        """Return those of the shards whose phones may be in one more round."""
        return [shard for shard in shards if self.allows(account, shard)]

    def epsilon(self, account: Account) -> float:
        """Return the ε, with δ, of whoever has paid most."""
        return self._epsilon(account.most.rho, account.most.xi)

    @property
    def most_epsilon(self) -> float:
        """The ε of a phone that has been in as many rounds as it may."""
        whole = self._epsilon(self.rho * self.participations)
        return min(whole, self.target or whole)

    def _epsilon(self, rho: float, xi: float = 0.0) -> float:
        return epsilon(rho, self.delta, xi, apart=self.apart)

    def over(self, account: Account, round_number: int) -> str:
        """Return why a run ends after a round: too few phones may be in another."""
        of = f" of --target-epsilon {self.target:g}" if self.target else ""
        often = f", and no phone is in more than {self.participations} rounds (--participations)"
        most = account.most.rho + self.rho
        another = self._epsilon(most, account.most.xi)
        bound = self.target and most > self._most() * (1 + SLACK)
        return (
            f"the privacy budget is spent: ε {self.epsilon(account):.3g}{of} after round {round_number}"
            f"{'' if bound else often}; another would make it {another:.3g}, and needs a higher"
            f" {'target_epsilon' if bound else 'participations'} in config.toml, which promises phones less"
        )


_rho_within = lru_cache(maxsize=16)(rho_within)
