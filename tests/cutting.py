"""A relay on real sockets that breaks connections at chosen bytes: by a reset, an early end, or silence."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

PIECE_BYTES = 32 * 1024
How = Literal["rst", "fin", "silence"]
Way = Literal["up", "down"]
LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Cut:
    """Break a connection once it has carried so many bytes one way: `up` is from the phone to the server."""

    way: Way
    after_bytes: int
    how: How


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    sock.close()


@dataclass
class Cutter:
    """Listens at `port`; each cut is for one connection, in turn, and those after them are carried whole."""

    target: int
    cuts: list[Cut]
    port: int = 0
    made: list[Cut] = field(default_factory=list)
    """The cuts that were made."""
    silent: list[socket.socket] = field(default_factory=list)


@contextlib.asynccontextmanager
async def cutting(target: int, cuts: Sequence[Cut]) -> AsyncIterator[Cutter]:
    """Relay to a port of this machine; leaves no socket and no task behind."""
    loop = asyncio.get_running_loop()
    cutter = Cutter(target, list(cuts))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        cutter.port = listener.getsockname()[1]
        async with asyncio.TaskGroup() as group:

            async def accept() -> None:
                while True:
                    near, _ = await loop.sock_accept(listener)
                    cut = cutter.cuts.pop(0) if cutter.cuts else None
                    group.create_task(_relay(near, cutter, cut))

            accepting = group.create_task(accept())
            try:
                yield cutter
            finally:
                accepting.cancel()
                for sock in cutter.silent:
                    sock.close()


async def _relay(near: socket.socket, cutter: Cutter, cut: Cut | None) -> None:
    loop = asyncio.get_running_loop()
    far = socket.socket()
    near.setblocking(False)
    far.setblocking(False)
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Little fits into the kernel: what is cut is in the middle of what is under way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)
    ways: list[asyncio.Task[bool]] = []
    how: How | None = None
    try:
        with contextlib.suppress(OSError):
            await loop.sock_connect(far, ("127.0.0.1", cutter.target))
            ways = [
                asyncio.create_task(_carry(near, far, cut.after_bytes if cut and cut.way == "up" else None)),
                asyncio.create_task(_carry(far, near, cut.after_bytes if cut and cut.way == "down" else None)),
            ]
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if cut is not None and any(way.result() for way in done):
                cutter.made.append(cut)
                how = cut.how
            else:
                await asyncio.wait(ways, timeout=5)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        if how == "silence":
            # Held open: nothing ever comes, and nothing is taken.
            cutter.silent += [near, far]
        else:
            for sock in (near, far):
                reset(sock) if how == "rst" else sock.close()


async def _carry(source: socket.socket, target: socket.socket, upto: int | None) -> bool:
    """Carry bytes until their end, or exactly `upto` of them; return whether it was that."""
    loop, carried = asyncio.get_running_loop(), 0
    with contextlib.suppress(OSError):
        while upto is None or carried < upto:
            piece = await loop.sock_recv(source, PIECE_BYTES if upto is None else min(PIECE_BYTES, upto - carried))
            if not piece:
                target.shutdown(socket.SHUT_WR)
                return False
            await loop.sock_sendall(target, piece)
            carried += len(piece)
        return True
    return False
