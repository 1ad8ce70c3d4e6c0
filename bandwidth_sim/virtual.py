"""Virtual time: the server and all phones of a run in one process, on a clock that jumps.

::

    run(main()) ── VirtualLoop = VirtualClock + VirtualNetwork
                     virtual_clock       timers, jobs and what is ready
                     virtual_network     who listens where; a phone's link
                     virtual_connection  two ends and the bytes between them, over the lanes of a link

Code that uses `create_connection`, `create_server`, timers and `run_in_executor(None, …)` runs unchanged; a phone's
link comes in by `VirtualDialer`, as it does by `relay.LinkedDialer` on real sockets.

Two runs with the same seed have the same events in the same order. What is random must come from `random`, which
`run` seeds, or from a seeded generator; the mask of a WebSocket frame comes from the operating system, but has the
same four bytes' length in every run. Do not iterate over sets of objects or of strings: their order changes with
addresses and hash seeds.
"""

import asyncio
import math
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.virtual_clock import JobSeconds, VirtualClock, VirtualTimeError, at_once
from featherfed.bandwidth_sim.virtual_connection import VirtualTransport
from featherfed.bandwidth_sim.virtual_network import (
    NetworkLog,
    VirtualLink,
    VirtualNetwork,
    VirtualServer,
    VirtualSocket,
)

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T],
    *,
    seed: int = 0,
    job_s: JobSeconds = at_once,
    limit_s: float = math.inf,
    log: NetworkLog | None = None,
) -> T:
    """Run a coroutine to its end in virtual time; the arguments are those of `VirtualLoop`.

    `random` is seeded before and put back afterwards. Raises `DeadlockError` when nothing can happen any more.

    >>> async def nap() -> float:
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> run(nap())
    3600.0
    """
    before = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(job_s=job_s, limit_s=limit_s, log=log)) as runner:
            return runner.run(main)
    finally:
        random.setstate(before)


class VirtualLoop(VirtualClock):
    """A clock with a network in memory.

    `log`: is told of every connection, arrival and end as (t_s, connection, event, bytes); the other arguments are
    those of `VirtualClock`.
    """

    def __init__(
        self, *, job_s: JobSeconds = at_once, limit_s: float = math.inf, log: NetworkLog | None = None
    ) -> None:
        super().__init__(job_s=job_s, limit_s=limit_s)
        self.network = VirtualNetwork(self, log)

    def close(self) -> None:
        """Forget all timers, arrivals and connections."""
        self.network.close()
        super().close()

    async def getaddrinfo(self, host: Any, port: Any, **filters: Any) -> list[Any]:
        """Answer any name with itself: the network in memory has no other addresses."""
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, int(port or 0)))]

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        **rest: Any,
    ) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        """Connect in memory: what a `VirtualDialer` has dialled, or to host and port without a link in between."""
        _refuse(ssl)
        if sock is None:
            if host is None or port is None:
                raise ValueError("a connection in memory needs a host and a port")
            sock = await self.network.dial(self.network.unlimited, host, port)
        elif not isinstance(sock, VirtualSocket):
            raise VirtualTimeError("there are no sockets in virtual time: give a host and a port")
        return await self.network.connect(protocol_factory, sock)

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        start_serving: bool = True,
        **rest: Any,
    ) -> VirtualServer:
        """Listen in memory; port 0 picks one, no host means every host."""
        _refuse(ssl)
        if sock is not None:
            raise VirtualTimeError("there are no sockets in virtual time: give a host and a port")
        name = host if isinstance(host, str | None) else next(iter(host), None)
        server = VirtualServer(self.network, protocol_factory, name or "0.0.0.0", port or 0)
        if start_serving:
            await server.start_serving()
        return server


def _refuse(ssl: Any) -> None:
    if ssl:
        raise VirtualTimeError("there is no TLS in virtual time: use ws:// addresses")


class VirtualDialer:
    """A phone's way out in virtual time, as `relay.LinkedDialer` is on real sockets."""

    def __init__(self, profile: Profile, seed: int) -> None:
        """Make it inside a running `VirtualLoop`."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise TypeError(
                "a VirtualDialer needs a running VirtualLoop: start it with featherfed.bandwidth_sim.virtual.run"
            )
        self._network = loop.network
        self.link = VirtualLink(profile, seed, loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.link.end("reset")

    async def connect(self, host: str, port: int) -> VirtualSocket:
        """Return what stands for a connected socket, after a round trip of the link: `sock=` of `create_connection`.

        Raises `ConnectionRefusedError` where nobody listens.
        """
        return await self._network.dial(self.link, host, port)

    @property
    def chunk_bytes(self) -> int:
        """How much to send in one message."""
        return self.link.profile.chunk_bytes

    def keepalive(self, message_bytes: int = 0) -> tuple[float, float]:
        """Return ping interval and timeout in seconds."""
        return self.link.profile.keepalive(message_bytes)
