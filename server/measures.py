"""What an evaluation says of a model, by name: metrics and loss; and the target that a run ends at."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from featherfed.errors import ConfigError
from featherfed.nearest import nearest

if TYPE_CHECKING:
    from featherfed.problem import Problem

TARGETS = (0.9, 0.95, 0.97, 0.98, 0.99)
"""What is reported of a fraction of which more is better, like accuracy: what it cost to get so far."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of the test set: its name, which way is better, and whether it is a fraction, which people read as %."""

    name: str
    higher_is_better: bool = True
    fraction: bool = False

    def score(self, value: float | None) -> float:
        """Return a number of which more is better: −∞ for what was not measured, or is no number."""
        if value is None or math.isnan(value):
            return -math.inf
        return value if self.higher_is_better else -value

    def reaches(self, value: float | None, wanted: float) -> bool:
        """Return whether a value is as good as the wanted one."""
        return value is not None and self.score(value) >= self.score(wanted)

    def text(self, value: float | None) -> str:
        """Return a value as people read it.

        >>> Measure("accuracy", fraction=True).text(0.97), Measure("mae").text(0.31), Measure("mae").text(21_500.25)
        ('97.00%', '0.3100', '21500')
        """
        if value is None:
            return "–"
        if not math.isfinite(value):
            return f"{value:g}"
        if self.fraction:
            return f"{value:.2%}"
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.5g}"

    def short(self, value: float) -> str:
        """Return a round value, such as targets are, without needless digits: 97%, or 0.3."""
        return f"{100 * value:g}%" if self.fraction else f"{value:g}"


LOSS = Measure("loss", higher_is_better=False)
Measures = tuple[Measure, ...]
"""Those of a run: its metrics in the problem's order, then the loss; none where there is no test set.

The first is what the best model is chosen by.
"""


def measures_of(problem: "Problem") -> Measures:
    """Return those of a problem that has a test set."""
    metrics = (Measure(name, each.higher_is_better, each.fraction) for name, each in problem.measures.items())
    return (*metrics, LOSS)


def figures(loss: float | None, metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return an evaluation's values by the names of its measures; none where nothing was evaluated."""
    return {**metrics, LOSS.name: loss}


def finite(value: float | None) -> float | None:
    """Return a number, or None: JSON has no other, and databases differ in what they make of them."""
    return value if value is not None and math.isfinite(value) else None


def to_text(measures: Iterable[Measure]) -> str:
    """Return measures as a run's database keeps them."""
    return json.dumps([asdict(each) for each in measures])


def from_text(text: str) -> Measures:
    """Return what `to_text` wrote."""
    return tuple(Measure(**each) for each in json.loads(text))


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A value of a measure at which a run may end, or up to which its bytes are counted."""

    name: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `accuracy=0.97`; raises `ConfigError` for what is none."""
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (name.strip() and equals and math.isfinite(number)):
            raise ConfigError(f"--target {text!r} is not a metric and its value, like accuracy=0.97 or loss=0.1")
        return cls(name.strip(), number)

    def __str__(self) -> str:
        return f"{self.name}={f'{self.value!r}'.removesuffix('.0')}"

    def measure(self, measures: Sequence[Measure]) -> Measure:
        """Return which of the measures it is of; raises `ConfigError` where it is of none, or can never be reached."""
        if not measures:
            raise ConfigError(f"--target {self} needs a test set, and the problem has none")
        for each in measures:
            if each.name == self.name:
                if each.fraction and not 0 <= self.value <= 1:
                    raise ConfigError(f"--target {self} is not a fraction from 0 to 1, like {self.name}=0.97")
                return each
        known = [each.name for each in measures]
        raise ConfigError(f"--target {self}: the problem has no metric {self.name!r}{nearest(self.name, known)}")
