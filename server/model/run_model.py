"""What the rounds ask of the model of a run: a server steps and evaluates it, a gateway has it from its root."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from featherfed.fingerprint import Fingerprint
from featherfed.initial_weights import InitialWeights
from featherfed.server.measures import Measures
from featherfed.server.model.evaluation_work import UnderWay
from featherfed.server.model.round_sum import RoundSum
from featherfed.server.model.versions import Versions


@dataclass(frozen=True, slots=True)
class Closing:
    """What a round's close gave."""

    version: int
    due: bool = False
    """Whether the version is to be evaluated."""
    over: bool = False
    """Whether the run ends here, whatever its target: a gateway's root has said so."""
    following: int = 0
    """The next round, where it is not the one after."""
    phones: int | None = None
    """How many updates are in the sums of gateways, at their root."""


class RunModel(Protocol):
    """The model, its versions on the phones, and the sum of the open round."""

    problem: str
    fingerprint: Fingerprint
    initial: InitialWeights | None
    """How phones draw version 0; None where it travels."""
    measures: Measures
    """What evaluations say; nothing where there are none."""
    versions: Versions
    sum: RoundSum

    @property
    def parameters(self) -> int:
        """Number of coordinates of the model."""

    def close(self, round_number: int) -> Closing:
        """Make the next version of the round's sum, which ends; blocks.

        Raises `ProblemError` for a rule of the user's own that fails, and `LocalError` where a gateway's root is lost;
        nothing that is saved has changed then.
        """

    def evaluation(self) -> UnderWay | None:
        """Begin to evaluate the newest version, beside what follows its round; None where there is no test set.

        It is to be done before `close` is called again: then nothing changes the weights meanwhile.
        """

    def best_so_far(self, values: Mapping[str, float | None]) -> bool:
        """Note what a version was evaluated to, by the names of `measures`; return whether none before was as good."""

    def save(self, path: Path, *, note: str = "") -> None:
        """Write all that `restore` needs, as a safetensors file whose first tensors are the model's own.

        Its title ends in `note`.
        """

    def restore(self, path: Path, version: int) -> None:
        """Go on with a saved model; raises `ConfigError` for a file that cannot be read."""

    def recall(self, evaluations: Iterable[Mapping[str, float | None]]) -> None:
        """Take what earlier rounds were evaluated to, by the names of `measures`: the best of them is to be beaten."""
