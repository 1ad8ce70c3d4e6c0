"""The link alone: a TCP proxy that any program can go through."""

import asyncio
import errno
import re
import socket
from types import TracebackType
from typing import Self

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.lane import handshake
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.relay import Log, PhoneLink, dial, shrink

OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of accepting that are this machine's, and pass when others close something."""
PAUSE_S = 0.1
_ADDRESS = re.compile(r"(?:\[([^\[\]\s/@]+)\]|([^\[\]\s/@]+)):([0-9]{1,5})")


def parse_address(text: str, *, least: int = 0) -> tuple[str, int]:
    """Read `HOST:PORT`, where an IPv6 host may stand in brackets and the port is `least` or more.

    >>> parse_address("127.0.0.1:9000"), parse_address("[::1]:9000"), parse_address("::1:9000")
    (('127.0.0.1', 9000), ('::1', 9000), ('::1', 9000))
    """
    match = _ADDRESS.fullmatch(text)
    host, port = (match[1] or match[2], int(match[3])) if match else ("", 0)
    try:
        # What DNS cannot hold, like a..b, would only be found when somebody connects.
        valid = bool(host.encode("idna")) and port < 65536
    except UnicodeError:
        valid = False
    if not valid:
        raise LinkConfigError(f"address {text!r} is not HOST:PORT: write it like 127.0.0.1:9000")
    if port < least:
        raise LinkConfigError(f"address {text!r}: nothing listens on port {port}; name one from {least} to 65535")
    return host, port


class Proxy:
    """Listens on one address and relays every connection to another, all of them through one phone's link."""

    def __init__(self, profile: Profile, seed: int, target: tuple[str, int], *, log: Log | None = None) -> None:
        self.link = PhoneLink(profile, seed, log)
        self._target = target
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._log = log
        self._dialing: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Start to accept; port 0 picks one. Returns the address; raises OSError where it is taken."""
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        listener = socket.socket(family, kind, protocol)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shrink(listener, self.link.profile.up)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        listener.listen(128)
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))
        bound = listener.getsockname()
        return bound[0], bound[1]

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                near, _ = await loop.sock_accept(listener)
            except OSError as error:
                # One connection that was over before it was accepted, or no descriptor is free: the next one may do.
                if error.errno in OUT_OF_ROOM:
                    await asyncio.sleep(PAUSE_S)
                continue
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._connect(near))
            self._dialing.add(task)
            task.add_done_callback(self._dialing.discard)

    async def _connect(self, near: socket.socket) -> None:
        try:
            # The program's own handshake with this listener was free: it waits here for the link's.
            await handshake(self.link.up, self.link.down)
            far = await dial(*self._target, self.link.profile.up)
        except OSError as error:
            near.close()
            if self._log is not None:
                self._log({"event": "refused", "to": f"{self._target[0]}:{self._target[1]}", "reason": str(error)})
            return
        except asyncio.CancelledError:
            near.close()
            raise
        self.link.relay(near, far)

    async def close(self) -> None:
        """Stop accepting and end all connections; leaves no task and no descriptor."""
        tasks = [*self._dialing, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        self.link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
