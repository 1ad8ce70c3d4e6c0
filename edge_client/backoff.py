"""When to come back after a lost connection: exponential backoff with full jitter.

Waiting a uniform time between zero and the cap spreads a thousand phones that lost one server evenly (Brooker 2015,
"Exponential Backoff and Jitter").
"""

import random
from functools import cached_property

FIRST_S = 0.5
CAP_S = 30.0


class Backoff:
    """Grows with every failure in a row; the randomness is the phone's own, by its `seed`."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._failures = 0

    @cached_property
    def _random(self) -> random.Random:
        # Most phones never fail, and a generator has 2.5 kB.
        return random.Random(self._seed)

    def next_s(self) -> float:
        """Return how long to wait after one more failure, in seconds."""
        most_s = min(CAP_S, FIRST_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return self._random.uniform(0, most_s)

    def reset(self) -> None:
        """Begin again after a success."""
        self._failures = 0
