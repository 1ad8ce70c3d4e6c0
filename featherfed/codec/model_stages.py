"""feedback, flat and exact: stages about the model as a whole, which change no value by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from featherfed.codec.registry import stage
from featherfed.codec.stage import Slot, Stage, Trait
from featherfed.errors import SpecError


@stage("feedback")
@dataclass(frozen=True, slots=True)
class Feedback(Stage):
    """Error feedback: what an update left out is added to the next one.

    With residual e the phone encodes x + e and keeps e ← (x + e) − decoded. It commits e only when the server has
    accepted the update, so that a lost update loses nothing (Seide et al. 2014; Karimireddy et al. 2019).

    Where the run's uplink changes, e stays under another pipeline with feedback; one without it sends x + e and leaves
    none, and a structured one, which trains other coordinates, leaves it waiting.
    """

    slot = Slot.STATE
    paper = "Karimireddy et al. 2019, arXiv 1901.09847"
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.SCALED_UP: "the residual grows without bound under a stage that scales values up; use topk",
        Trait.SUBSPACE: "a residual of all weights cannot be sent through this round's subspace",
    }
    phone_only = "the server keeps the downlink's residual by itself, since it sends differences to what phones hold"
    unbiased = False
    needs_state = True


@stage("exact")
@dataclass(frozen=True, slots=True)
class Exact(Stage):
    """Tensors of fewer than `below` values travel as float32; 64 where no `exact` is written, 0 for none."""

    below: int

    slot = Slot.EXACT
    paper = "featherfed: biases are small and matter"
    offers = frozenset({Trait.WHOLLY_CODED})
    parameter = "values, 0 or more"
    example = "0"

    def __post_init__(self) -> None:
        if self.below < 0:
            raise SpecError(f"exact({self.below}) is below 0")

    @property
    def offered(self) -> frozenset[Trait]:
        """Only `exact(0)` sends nothing as float32."""
        return frozenset() if self.below else self.offers


@stage("flat")
@dataclass(frozen=True, slots=True)
class Flat(Stage):
    """The model is one tensor: one header in place of one a tensor, which counts when updates are tiny."""

    slot = Slot.WHOLE
    paper = "featherfed: at 229 bytes an update, 4 bytes a tensor are a tenth"
    offers = frozenset({Trait.ONE_TENSOR})
