"""Who is asked in a round."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from featherfed.randomness import derive
from featherfed.rules.parameters import Rule


@dataclass(frozen=True, slots=True)
class PhoneFacts:
    """What the server knows of the phone of a shard; 0 or an empty text stands for what it does not know (yet).

    `link` is the phone's name for its link, `bytes_per_s` what that link carries up, as the phone says at Hello;
    `examples` those of its last update that counts; `seconds` the time from its task to that update; `last_counted`
    the round of that update, and `last_asked` the last round in which it was asked, both counted from 1.
    """

    shard: int
    link: str = ""
    bytes_per_s: int = 0
    examples: int = 0
    seconds: float = 0.0
    last_counted: int = 0
    last_asked: int = 0


@dataclass(frozen=True, slots=True)
class SelectKey:
    """What a choice's randomness comes from: the run's seed, the round, and the attempt at it, counted from 0."""

    seed: int
    round_number: int
    attempt: int

    def draw(self, shard: int) -> int:
        """Return 128 bits of a shard's own: whether shard 7 is there decides about shard 7 and one more."""
        return derive(self.seed, self.round_number, shard, f"cohort/{self.attempt}")


class Select(Rule, ABC):
    """Chooses the phones of a round: pure, so that a run that is repeated or resumed asks the same ones."""

    uses_facts: ClassVar[bool] = True
    """Whether it looks at more than shards; for one that does not, nothing else is kept."""
    separable: ClassVar[bool] = False
    """Whether those chosen of all phones are those that each gateway would choose of its own, by shard and key alone:
    what a run with gateways needs, where no server knows all phones."""

    @abstractmethod
    def choose(self, phones: Sequence[PhoneFacts], size: int, key: SelectKey) -> Iterable[int]:
        """Return the shards of at most `size` phones, at least one of them, of `phones`, which are here and idle."""
        raise NotImplementedError
