"""Whether a connection still lives, without I/O: bytes must move.

A ping is no measure by itself: it waits behind what a slow link has still to carry, and where the sender's buffer is
full it is never sent, so the end of a phone in the middle of a download would go unnoticed. What counts is that bytes
arrive, or that what waits to be sent grows less; pings only make sure that a connection with nothing to say has an
answer to wait for. A ping that leaves at once is no sign of life: any box on the way may have taken it.
"""

SILENT_HEARTBEATS = 1.6
"""A connection that moves no byte for so many heartbeats is dead: found within two, with the time between looks."""


class Pulse:
    """Says that a connection is dead when nothing has moved for `silence_s` seconds.

    >>> pulse = Pulse(35.0, now_s=0.0)
    >>> [pulse.beats(received=100, sent=sent, waiting=0, now_s=now_s) for sent, now_s in ((0, 30), (6, 60), (12, 66))]
    [True, True, False]
    """

    CHECKS = 4
    """Times to look within `silence_s`: a death is found a quarter of it late at the most."""

    def __init__(self, silence_s: float, now_s: float) -> None:
        self.silence_s = silence_s
        self._received = self._drained = self._waiting = 0
        self._last_s = now_s

    @property
    def check_s(self) -> float:
        """Seconds between two looks."""
        return self.silence_s / self.CHECKS

    def beats(self, *, received: int, sent: int, waiting: int, now_s: float) -> bool:
        """Return whether the connection lives; `waiting` of the bytes sent so far have not been taken yet."""
        drained = sent - waiting
        if received != self._received or (self._waiting and drained != self._drained):
            self._last_s = now_s
        self._received, self._drained, self._waiting = received, drained, waiting
        # Looks come in even quarters: the one that is due must not miss by a rounding.
        return now_s - self._last_s < self.silence_s * (1 - 1e-9)
