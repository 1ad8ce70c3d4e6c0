"""Why a connection ends: WebSocket close codes of the private range, each with its meaning.

The sentence travels as the close frame's reason, cut to the 123 bytes that RFC 6455 leaves it.
"""

import enum
import re

from featherfed.errors import ProtocolError

MAX_REASON_BYTES = 123


class Close(enum.IntEnum):
    """Close codes that featherfed sends; `UNABLE` and `UNTRAINED` are a phone's."""

    DONE = 1000
    GOING_AWAY = 1001
    FAULT = 4000
    PROTOCOL = 4001
    VERSION = 4002
    PAYLOAD = 4003
    REFUSED = 4004
    REPLACED = 4005
    PAUSED = 4006
    NO_SHARD = 4007
    TOO_FAST = 4008
    TOO_MANY = 4009
    UNABLE = 4010
    LATER = 4011
    UNTRAINED = 4012
    RESTS = 4013

    @property
    def final(self) -> bool:
        """Whether the phone should not come back with the same request."""
        return self in {Close.DONE, Close.VERSION, Close.REFUSED, Close.REPLACED, Close.NO_SHARD}


def reason(sentence: str) -> str:
    """Return what of `sentence` fits a close frame: whole words, and … for the rest.

    >>> len(reason("there is no shard for this phone " * 9).encode()) <= MAX_REASON_BYTES
    True
    >>> reason("there is no shard for this phone " * 9)[-20:]
    'e there is no shard…'
    """
    if len(whole := sentence.encode()) <= MAX_REASON_BYTES:
        return sentence
    kept = whole[: MAX_REASON_BYTES - len("…".encode())].decode(errors="ignore")
    return (kept.rsplit(" ", 1)[0] if " " in kept else kept) + "…"


LEAST_REST_S = 1.0
"""Who is sent away stays away for so long at least, whatever it is told."""
LONGEST_REST_S = 7 * 24 * 3600.0


def rest_reason(round_number: int, seconds: float) -> str:
    """Return the reason of `RESTS`: the round that asks the phone next, and in how many seconds it may open.

    >>> rest_reason(7, 125.4)
    '7 125'
    """
    return f"{round_number} {min(seconds, LONGEST_REST_S):.0f}"


def read_rest(text: str) -> tuple[int, float]:
    """Return the round and the seconds of a `RESTS`; raises `ProtocolError` for anything else.

    >>> read_rest("7 125")
    (7, 125.0)
    """
    match = re.fullmatch(r"([0-9]{1,15}) ([0-9]{1,6})", text)
    if match is None or int(match[2]) > LONGEST_REST_S:
        raise ProtocolError(f"a phone is to rest until {readable(text)!r}, which is no round and seconds")
    return int(match[1]), float(match[2])


def readable(text: str, most: int = 200) -> str:
    r"""Return what the other end wrote as one line that no terminal obeys, cut to `most` characters.

    >>> readable("done\x1b[2J and gone\n" + 300 * "!", most=20)
    'done?[2J and gone?!…'
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"
