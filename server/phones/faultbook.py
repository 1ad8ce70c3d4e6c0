"""Which faults are worth a row in the database and a line on the screen.

Strangers and broken phones come back as often as they like; what is kept of them must not grow with it. The first
`KEPT` of each phone are kept (of all strangers together: `KEPT_OF_STRANGERS`), then only the one that makes ten times
as many, and so on.
"""

from featherfed.server.phones.phone_connection import STRANGER

KEPT = 20
KEPT_OF_STRANGERS = 200


class FaultBook:
    """How many faults each shard's phones have had; strangers share a count."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def note(self, shard: int, sentence: str) -> str | None:
        """Count a fault; return the sentence to keep of it, or None.

        >>> book = FaultBook()
        >>> kept = [book.note(3, "it lied") for _ in range(1000)]
        >>> sum(sentence is not None for sentence in kept), kept[0], kept[199]
        (21, 'it lied', 'it lied (number 200; not all are kept)')
        """
        count = self._counts[shard] = self._counts.get(shard, 0) + 1
        kept = KEPT_OF_STRANGERS if shard == STRANGER else KEPT
        if count <= kept:
            return sentence
        while kept < count:
            kept *= 10
        return f"{sentence} (number {count}; not all are kept)" if kept == count else None
