"""Loss, as a stream feels it: no byte is ever lost, it comes later, and bulk goes slower."""

import math
import random
from functools import cached_property

_MATHIS = math.sqrt(3 / 2)


class Loss:
    """Packets lost with probability `loss`, each sent again by TCP.

    Three costs. Every packet crosses the bottleneck 1/(1−p) times on average. A lost one arrives a round trip later
    and holds up all behind it (fast retransmit). Bulk goes no faster than MSS/RTT · √(3/2)/√p (Mathis, Semke, Mahdavi
    and Ott, "The macroscopic behavior of the TCP congestion avoidance algorithm", 1997).
    """

    def __init__(self, loss: float, rtt_s: float, mss: int, seed: int) -> None:
        self._loss = loss
        self._rtt_s = rtt_s
        self._mss = mss
        self._seed = f"{seed}/loss"

    @cached_property
    def _random(self) -> random.Random:
        # Links of most phones have none, and a generator has 2.5 kB.
        return random.Random(self._seed)

    @property
    def copies(self) -> float:
        """How often a packet crosses the bottleneck on average."""
        return 1 / (1 - self._loss)

    def capped(self, rate_bytes_per_s: float | None) -> float | None:
        """Return the rate that congestion control reaches; None stays unlimited only without loss or delay."""
        if not self._loss or not self._rtt_s:
            return rate_bytes_per_s
        cap = self._mss / self._rtt_s * _MATHIS / math.sqrt(self._loss)
        return cap if rate_bytes_per_s is None else min(rate_bytes_per_s, cap)

    def delay_s(self, num_bytes: int) -> float:
        """Return how much later a piece arrives because one of its packets was lost; usually zero."""
        if not self._loss:
            return 0.0
        packets = max(1, math.ceil(num_bytes / self._mss))
        return self._rtt_s if self._random.random() > (1 - self._loss) ** packets else 0.0
