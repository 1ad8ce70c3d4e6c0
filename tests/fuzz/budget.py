"""How many inputs each fuzz test gets, and how many it had.

`FEATHERFED_FUZZ` is the number in all: some thousands in CI, drawn alike each time; `make fuzz` asks for more than
100,000 and draws anew.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

TOTAL = int(os.environ.get("FEATHERFED_FUZZ", "3000"))
THOROUGH = TOTAL > 50_000

counts: dict[str, int] = {}
began_s = time.monotonic()


def inputs(share: float) -> Callable[[Any], Any]:
    """Give a test this share of all inputs, shrinking what fails."""
    return settings(
        max_examples=max(10, round(TOTAL * share)),
        deadline=None,
        derandomize=not THOROUGH,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def count(target: str, number: int = 1) -> None:
    """Note that a target was given an input."""
    counts[target] = counts.get(target, 0) + number
