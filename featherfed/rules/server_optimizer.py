"""What the server does with a round's update."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields

from featherfed.rules.aggregate import F32, Arrays
from featherfed.rules.parameters import Rule


@dataclass(frozen=True, slots=True)
class ServerState:
    """The model, (parameters,) float32, and what the optimizer remembers: float32 arrays by name."""

    weights: F32
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class ServerOptimizer(Rule, ABC):
    """Steps the server's model by a round's update, which is a pseudo-gradient: pure, state in and state out.

    `lr` is `--server-lr`; the numbers that may follow the name, as in `mytask:Lion:0.9`, are the further fields.
    """

    lr: float = 1.0

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Return the names of the numbers that may follow the name."""
        return tuple(each.name for each in fields(cls) if each.init and each.name != "lr")

    def start(self, weights: F32) -> Arrays:
        """Return what it remembers before the first round: nothing, where it keeps nothing."""
        return {}

    @abstractmethod
    def step(self, state: ServerState, update: F32, round_number: int) -> ServerState:
        """Return the state after a round, counted from 1, whose mean update is `update`, (parameters,) float32."""
        raise NotImplementedError
