"""Who may have a connection: counted from the moment TCP accepts it, so that TLS and HTTP handshakes count too.

Room for admitted phones is never given to strangers: those have `handshakes` places of their own, and when these are
full, the stranger that has waited longest of the most crowded address makes room for the newcomer. A newcomer of that
address itself is sent away as long as that one has not had its time: a flood from one address costs little more than
its own knocking, and keeps nobody else out.
"""

import contextlib
import errno
import http
import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Any

from featherfed.server.door.guarded_connection import GuardedConnection, answer
from featherfed.server.door.limits import HANDSHAKE_BYTES, PATIENCE_S, Limits
from featherfed.wire.address import is_loopback
from featherfed.wire.closing import Close

OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of accepting that are this machine's: asyncio waits a second where it meets one."""
REFUSALS = 50
"""In one turn of the event loop: a flood neither keeps those inside waiting nor fills the kernel's queue."""


class Guest(socket.socket):
    """An accepted connection's socket; tells when it is closed."""

    number = -1
    """Its file descriptor, which nothing else has while it is open."""
    address = ""
    since_s = 0.0
    connection: GuardedConnection | None = None
    left: Callable[["Guest"], None] | None = None
    closed: Callable[["Guest"], None] | None = None

    def close(self) -> None:
        """Close, and leave."""
        super().close()
        self.leave()
        closed, self.closed = self.closed, None
        if closed is not None:
            closed(self)

    def leave(self) -> None:
        """Take no place any more, once."""
        left, self.left = self.left, None
        if left is not None:
            left(self)


class Doorkeeper:
    """The book of connections."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._of_address: dict[str, int] = {}
        # By address, then by number in the order of their coming.
        self._strangers: dict[str, dict[int, Guest]] = {}
        self._guests: dict[int, Guest] = {}
        self._open: set[Guest] = set()
        """All whose sockets are open, those included that take no place any more."""

    @property
    def empty(self) -> bool:
        """Whether every socket that was let in is closed."""
        return not self._open

    def break_off(self) -> None:
        """End all connections at once."""
        for guest in list(self._open):
            if guest.connection is not None:
                guest.connection.transport.abort()
            else:
                # In the middle of TLS: asyncio, which holds it, closes it for its end.
                with contextlib.suppress(OSError):
                    guest.shutdown(socket.SHUT_RDWR)

    @property
    def guests(self) -> list[GuardedConnection]:
        """All connections that are past TCP and TLS."""
        return [guest.connection for guest in self._guests.values() if guest.connection is not None]

    def dismiss_strangers(self, sentence: str) -> None:
        """Displace all who have not been admitted."""
        for guest in [guest for crowd in self._strangers.values() for guest in crowd.values()]:
            self._displace(guest, Close.GOING_AWAY, sentence)

    @property
    def strangers(self) -> int:
        """How many of them have not been admitted."""
        return sum(map(len, self._strangers.values()))

    def enter(self, guest: Guest, host: str) -> str | None:
        """Note a new connection; return why it may not stay, or None."""
        limits, address = self._limits, network(host)
        there = self._of_address.get(address, 0)
        if there >= (limits.per_loopback_address if is_loopback(host) else limits.per_address):
            return f"your address {host} has {there} connections, its limit; come again later"
        now_s = time.monotonic()
        if self.strangers >= limits.handshakes:
            oldest = next(iter(max(self._strangers.values(), key=len).values()))
            sentence = f"{limits.handshakes} connections wait to be admitted, the limit; come again later"
            if oldest.address == address and now_s - oldest.since_s < PATIENCE_S:
                return sentence
            self._displace(oldest, Close.TOO_MANY, sentence)
        if len(self._guests) >= limits.connections:
            return f"this server has {len(self._guests)} connections, its limit; come again later"
        there = self._of_address.get(address, 0)
        guest.number, guest.address, guest.since_s, guest.left = guest.fileno(), address, now_s, self._left
        guest.closed = self._open.discard
        self._open.add(guest)
        self._guests[guest.number] = guest
        self._of_address[address] = there + 1
        self._strangers.setdefault(address, {})[guest.number] = guest
        return None

    def met(self, connection: GuardedConnection) -> None:
        """Note that a connection has come past TCP and TLS."""
        if guest := self._guests.get(_number(connection)):
            guest.connection = connection

    def admit(self, connection: GuardedConnection) -> None:
        """Note that a connection is a phone's: it takes no stranger's place any more."""
        if guest := self._guests.get(_number(connection)):
            self._no_stranger(guest)

    def _left(self, guest: Guest) -> None:
        del self._guests[guest.number]
        self._no_stranger(guest)
        self._of_address[guest.address] -= 1
        if not self._of_address[guest.address]:
            del self._of_address[guest.address]

    def _no_stranger(self, guest: Guest) -> None:
        strangers = self._strangers.get(guest.address, {})
        strangers.pop(guest.number, None)
        if not strangers:
            self._strangers.pop(guest.address, None)

    def _displace(self, guest: Guest, code: Close, sentence: str) -> None:
        # Its place is free at once; its socket is closed as soon as the event loop comes to it.
        guest.leave()
        if guest.connection is not None:
            guest.connection.turn_out(code, sentence, linger_s=0.0)
        else:
            # In the middle of TLS there is no way to say it.
            with contextlib.suppress(OSError):
                guest.shutdown(socket.SHUT_RDWR)


class DoorSocket(socket.socket):
    """A listening socket that asks the doorkeeper before the event loop hears of a connection."""

    doorkeeper: Doorkeeper
    speaks_tls = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that may stay; BlockingIOError where there is none."""
        for _ in range(REFUSALS):
            try:
                conn, address = super().accept()
            except OSError as error:
                if isinstance(error, BlockingIOError) or error.errno in OUT_OF_ROOM:
                    raise
                # A connection that was over before it was accepted: accept(2) tells of it, and has the next one.
                continue
            guest = Guest(conn.family, conn.type, conn.proto, fileno=conn.detach())
            guest.setblocking(False)
            refusal = self.doorkeeper.enter(guest, address[0])
            if refusal is None:
                return guest, address
            with contextlib.suppress(OSError):
                if not self.speaks_tls:
                    guest.send(answer(http.HTTPStatus.SERVICE_UNAVAILABLE, refusal))
                    # What is left unread when a socket closes resets the connection, and the answer with it.
                    guest.recv(HANDSHAKE_BYTES)
            guest.close()
        raise BlockingIOError


def network(host: str) -> str:
    """Return what one peer can have at most: an IPv4 address, or the /64 of an IPv6 address.

    >>> network("192.0.2.7"), network("::ffff:192.0.2.7"), network("2001:db8:0:1:2::7"), network("fe80::1%eth0")
    ('192.0.2.7', '192.0.2.7', '2001:db8:0:1::/64', 'fe80::/64')
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def _number(connection: GuardedConnection) -> int:
    number: int = connection.transport.get_extra_info("socket").fileno()
    return number
