"""The bottleneck's speed: how long so many bytes on the wire occupy it."""

import math


class Rate:
    """A constant rate in bytes a second; None is unlimited, zero lets nothing pass."""

    def __init__(self, rate_bytes_per_s: float | None) -> None:
        self._rate = rate_bytes_per_s

    def busy_s(self, wire_bytes: float) -> float:
        """Return for how many seconds of service `wire_bytes` occupy the link (infinite at rate zero)."""
        if self._rate is None or wire_bytes == 0:
            return 0.0
        return math.inf if self._rate == 0 else wire_bytes / self._rate
