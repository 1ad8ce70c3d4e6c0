"""Where phones come in: the listening socket, TLS, tokens, and what an open network must not get.

Beyond this machine nobody comes in without a token, and no token travels without TLS unless the operator says so.
"""

import asyncio
import contextlib
import errno
import functools
import http
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from featherfed.errors import ConfigError
from featherfed.server.door.doorkeeper import Doorkeeper, DoorSocket
from featherfed.server.door.entrance_flags import HOST, PORT
from featherfed.server.door.guarded_connection import GuardedConnection
from featherfed.server.door.limits import OPEN_S, Limits, limits_for
from featherfed.server.door.tokens import FILE, Token, Tokens
from featherfed.wire.address import is_host, is_loopback
from featherfed.wire.certificates import serving
from featherfed.wire.closing import Close
from featherfed.wire.guarding import GOODBYE_S

REVOCATION_S = 1.0
"""How often the tokens of open connections are looked at."""
OTHER_FILES = 128
"""Descriptors for everything but connections."""
SUBPROTOCOL, BEARER = Subprotocol("featherfed"), "bearer."
"""What a page offers, and what it puts before its token: no page can send a header of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntranceOptions:
    """What `fl-server serve` was told about who may come in; None is a limit's default.

    `lent` are tokens that are in no file, where others open too: of the gateways that `fl-server tree` starts. With
    `phone_page` browsers are served a page that makes phones of them, and its address has `phone_token`.
    """

    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tokens: Path | None = None
    insecure: bool = False
    max_connections: int | None = None
    max_per_address: int | None = None
    max_handshakes: int | None = None
    lent: tuple[Token, ...] = ()
    phone_page: bool = False
    phone_token: str | None = None

    def flags(self) -> list[str]:
        """Return the flags that say the same again, without those that have their defaults; port 0 picks another one.

        >>> EntranceOptions(host=HOST, port=9000, insecure=True).flags()
        ['--port', '9000', '--insecure']
        """
        usual = {"host": HOST, "port": PORT, **{each.name: each.default for each in fields(self)[2:]}}
        flags = []
        for name, default in usual.items():
            value = getattr(self, name)
            # A token is told to nobody, and comes from the environment again.
            if name in ("lent", "phone_token") or value in (default, 0):
                continue
            flags += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return flags

    def token_file(self, runs: Path) -> Path | None:
        """Return the file of the tokens that are in force, if any are: the one named, or the one beside the runs."""
        try:
            return self.tokens or (runs / FILE if (runs / FILE).exists() else None)
        except OSError as error:
            raise ConfigError(f"cannot look for the tokens {runs / FILE}: {error.strerror}") from error


class Page(Protocol):
    """What browsers are served where phones come in."""

    def answer(self, request: Request, *, allowed: bool) -> Response:
        """Answer a plain GET; what is not for everybody is for those who are `allowed`: who have shown a token."""

    def turned_away(self, request: Request) -> str | None:
        """Return why a browser may open no WebSocket, since another page than ours asks, or None."""


class Entrance:
    """An entrance that is open; use it as a context manager."""

    def __init__(self, options: EntranceOptions, runs: Path, phones: int) -> None:
        """Bind the socket; raises `ConfigError`. Without `options.tokens`, those beside the runs are used if there."""
        if not is_host(options.host):
            raise ConfigError(f"--host {options.host!r} is not a host, like 127.0.0.1, ::1 or the name of this machine")
        path = options.tokens or runs / FILE
        if options.tokens and not os.path.lexists(path):
            raise ConfigError(
                f"there are no tokens in {path}; fl-server token add NAME --tokens {path} makes the first"
            )
        in_force = options.token_file(runs)
        self.tokens = Tokens(in_force, options.lent) if in_force else None
        self.page: Page | None = None
        self.tls = _context(options.tls_cert, options.tls_key)
        if not is_loopback(options.host):
            if self.tokens is None:
                raise ConfigError(
                    f"--host {options.host} would let anybody in; give each phone a token first:"
                    f" fl-server token add NAME --tokens {path}"
                )
            if self.tls is None and not options.insecure:
                raise ConfigError(
                    f"--host {options.host} without TLS would show tokens and models to the network;"
                    " give --tls-cert and --tls-key, or say --insecure"
                )
        limits = limits_for(
            phones,
            connections=options.max_connections,
            per_address=options.max_per_address,
            handshakes=options.max_handshakes,
        )
        _allow_files(limits, phones)
        self._doorkeeper = Doorkeeper(limits)
        self.socket = bind(options.host, options.port, self._doorkeeper, speaks_tls=self.tls is not None)

    def __enter__(self) -> "Entrance":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def serve_arguments(self, turned_away: Callable[[int, str], None]) -> dict[str, Any]:
        """Return what the websockets library's `serve` must be told; `turned_away` is told who got no WebSocket."""
        arguments: dict[str, Any] = {
            "sock": self.socket,
            "create_connection": functools.partial(GuardedConnection, door=self._doorkeeper),
        }
        if self.tls is not None:
            arguments |= {"ssl": self.tls, "ssl_handshake_timeout": OPEN_S}
        if self.page is not None:
            arguments |= {"subprotocols": [SUBPROTOCOL], "select_subprotocol": _chosen}
        if self.tokens is not None or self.page is not None:
            arguments["process_request"] = functools.partial(self._process_request, turned_away)
        return arguments

    async def close(self, sentence: str) -> None:
        """Let nobody in any more, and tell those who were not admitted why: nobody waits for their handshakes."""
        asyncio.get_running_loop().remove_reader(self.socket)
        # Who was accepted just now gets a transport in the loop's next turn, and a connection in the one after that. A
        # server that is closed before has nobody to end them, and they would be left behind.
        for _ in range(2):
            await asyncio.sleep(0)
        self._doorkeeper.dismiss_strangers(sentence)

    async def emptied(self) -> None:
        """Return when no socket of any connection is open; soon, whatever is still unsent."""
        deadline_s = time.monotonic() + GOODBYE_S
        while not self._doorkeeper.empty:
            if time.monotonic() > deadline_s:
                self._doorkeeper.break_off()
            await asyncio.sleep(0.01)

    async def watch(self) -> None:
        """Close the connections whose token is revoked, as long as the server runs."""
        while self.tokens is not None:
            await asyncio.sleep(REVOCATION_S)
            for connection in self._doorkeeper.guests:
                if connection.token is not None and not self.tokens.valid(connection.token):
                    connection.turn_out(Close.REFUSED, f"the token of {connection.token.name!r} was revoked")

    def _process_request(
        self, turned_away: Callable[[int, str], None], connection: ServerConnection, request: Request
    ) -> Response | None:
        assert isinstance(connection, GuardedConnection)
        headers = request.headers.get_all("Authorization") or _offered(request)
        if self.tokens is not None:
            connection.token = self.tokens.find(headers[0] if len(headers) == 1 else None)
        allowed = self.tokens is None or connection.token is not None
        if self.page is not None:
            if "Upgrade" not in request.headers:
                return self.page.answer(request, allowed=allowed)
            if (why := self.page.turned_away(request)) is not None:
                turned_away(http.HTTPStatus.FORBIDDEN, why)
                return connection.respond(http.HTTPStatus.FORBIDDEN, f"{why}\n")
        if allowed:
            return None
        what = "this token opens nothing here" if headers else "no token"
        turned_away(http.HTTPStatus.UNAUTHORIZED, what)
        response = connection.respond(http.HTTPStatus.UNAUTHORIZED, f"{what}; fl-edge takes one with --token\n")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _chosen(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Answer a page's offer; phones that offer nothing get no answer to it."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _offered(request: Request) -> list[str]:
    """Return the header that a browser's page would send if it could: its token comes as a subprotocol."""
    offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(",")
    return [f"Bearer {each.strip()[len(BEARER) :]}" for each in offered if each.strip().startswith(BEARER)]


def bind(host: str, port: int, doorkeeper: Doorkeeper, *, speaks_tls: bool, flag: str = "--port") -> DoorSocket:
    """Return a TCP socket that listens on the address, or raise `ConfigError`, whose way out is the `flag` of the port.

    It listens at once: a port that is only bound may still be taken while data and model are loaded.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sets TCP_NODELAY where a socket says that it is TCP's. Without it a task waits up to 40 ms until the
        # phone's kernel has acknowledged the message before.
        sock = DoorSocket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error.strerror}") from error
    sock.doorkeeper, sock.speaks_tls = doorkeeper, speaks_tls
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen()
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"--host {host} is no address of this machine") from error
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another {flag}, or 0 for a free one"
        ) from error
    return sock


def _context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    return serving(cert, key)


def _allow_files(limits: Limits, phones: int) -> None:
    """Raise the process's limit of open files to what the connections need, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"{limits.connections} connections (--max-connections) for --phones {phones} need {needed} open files, and"
            f" the system allows {hard}; raise ulimit -n, or give a lower --max-connections"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
