"""Whether a connection still lives, without I/O: bytes must move.

A ping is no measure by itself: it waits behind what a slow link has still to carry, and where the sender's buffer is
full it is never sent, so the end of a phone in the middle of a download would go unnoticed. What counts is that bytes
arrive or are acknowledged by the other end's kernel (`counting.CountsBytes.bytes_moved`); pings only make sure that a
connection with nothing to say has something to move.
"""


class Pulse:
    """Says that a connection is dead when nothing has moved for `silence_s` seconds.

    >>> pulse = Pulse(35.0, now_s=0.0)
    >>> pulse.beats(100, now_s=30.0), pulse.beats(100, now_s=60.0), pulse.beats(100, now_s=66.0)
    (True, True, False)
    """

    CHECKS = 8
    """Times to look within `silence_s`: a death is found an eighth of it late at the most."""

    def __init__(self, silence_s: float, now_s: float) -> None:
        self.silence_s = silence_s
        self._moved = 0
        self._last_s = now_s

    @property
    def check_s(self) -> float:
        """Seconds between two looks."""
        return self.silence_s / self.CHECKS

    def beats(self, moved: int, now_s: float) -> bool:
        """Return whether the connection lives, given the bytes that it has moved so far."""
        if moved != self._moved:
            self._moved, self._last_s = moved, now_s
        return now_s - self._last_s < self.silence_s
