"""Every open connection of a run, those of strangers included."""

from collections.abc import Iterator

from featherfed.server.phones.phone_connection import PhoneConnection


class Connections:
    """In the order in which they came: the goodbyes of a run in virtual time come in the same one again."""

    def __init__(self) -> None:
        self._open: dict[PhoneConnection, None] = {}

    def add(self, phone: PhoneConnection) -> None:
        """Take a connection that has begun."""
        self._open[phone] = None

    def remove(self, phone: PhoneConnection) -> None:
        """Forget a connection that has ended."""
        self._open.pop(phone, None)

    def __iter__(self) -> Iterator[PhoneConnection]:
        return iter(list(self._open))

    def count(self) -> None:
        """Bring the ledger up to what the sockets have carried, frames that are not whole yet included."""
        for phone in self:
            phone.count()

    def abort_silent(self, now_s: float) -> None:
        """Break off connections on which nothing moves."""
        for phone in self:
            if not phone.lives(now_s):
                phone.abort()
