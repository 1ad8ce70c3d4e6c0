"""Where a phone may find its server: one address, or those of a run's gateways, one after the other."""

from collections.abc import Sequence


class Addresses:
    """A ring of addresses; the phone stays at one as long as it answers."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._at = self._tried = self._refused = 0

    def __str__(self) -> str:
        return " or ".join(self._addresses)

    @property
    def current(self) -> str:
        """Where to try."""
        return self._addresses[self._at]

    def failed(self, *, no_shard: bool = False) -> bool:
        """Go on to the next one; return whether all have been tried since the last wait.

        >>> addresses = Addresses(["ws://a", "ws://b"])
        >>> addresses.failed(), addresses.current, addresses.failed(), addresses.current
        (False, 'ws://b', True, 'ws://a')
        """
        if not self._tried:
            self._refused = 0
        self._at = (self._at + 1) % len(self._addresses)
        self._tried = (self._tried + 1) % len(self._addresses)
        self._refused += no_shard
        return self._tried == 0

    @property
    def none_has_a_shard(self) -> bool:
        """Whether every address has answered, and has no shard for this phone."""
        return self._refused == len(self._addresses)

    def found(self) -> None:
        """Note that the current one is the phone's."""
        self._tried = self._refused = 0
