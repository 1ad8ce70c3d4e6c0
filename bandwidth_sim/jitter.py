"""Jitter: a delay that varies, drawn from a named distribution with a seed."""

import random
from functools import cached_property


class Jitter:
    """Uniform between −`jitter_s` and +`jitter_s`, one draw for each piece sent, as netem's default distribution.

    A stream stays in order: the link never lets a piece overtake the one before it, so under load the delay tends to
    the upper end, as it does for TCP above a jittering path.
    """

    def __init__(self, jitter_s: float, seed: int) -> None:
        self._jitter_s = jitter_s
        self._seed = f"{seed}/jitter"

    @cached_property
    def _random(self) -> random.Random:
        # Links of most phones have none, and a generator has 2.5 kB.
        return random.Random(self._seed)

    def draw_s(self) -> float:
        """Return the next deviation from the mean delay in seconds."""
        return self._random.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0
