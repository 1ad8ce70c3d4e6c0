"""What a link achieves on real sockets: goodput, round trip, cost and lateness, beside what theory says."""

import asyncio
import contextlib
import math
import socket
import statistics
import time
from dataclasses import dataclass

from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.relay import LinkedDialer


@dataclass(frozen=True, slots=True)
class Achieved:
    """One upload and some pings through the relay; rates in payload bytes a second, errors as fractions."""

    link: str
    bytes: int
    nominal_bytes_per_s: float
    goodput_bytes_per_s: float
    goodput_error: float
    nominal_rtt_s: float
    rtt_s: float
    early_s: float
    most_early_s: float
    p99_late_s: float
    worst_late_s: float
    cpu_s_per_mb: float


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not exceed.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5)
    2.0
    """
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


async def measure(profile: Profile, num_bytes: int, *, pings: int = 5, seed: int = 0) -> Achieved:
    """Upload so many bytes to a sink on loopback through the profile's link, then ping it with single bytes.

    `early_s` is how long before the last byte's delivery the sender's write had returned; `most_early_s` what a sender
    with 32 kB of buffers and the link's queue may be early.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[float] = loop.create_future()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio's own callback, in Python 3.11, reports a handler that was cancelled as a fault.
        with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):
            left = num_bytes
            while left and (data := await reader.read(min(left, 1 << 16))):
                left -= len(data)
            if left:
                return  # it is being interrupted
            received.set_result(loop.time())
            while byte := await reader.read(1):
                writer.write(byte)

    server = await asyncio.start_server(sink, "127.0.0.1", 0)
    async with server, LinkedDialer(profile, seed) as dialer:
        late = dialer.link.up.lateness = []
        sock = await dialer.connect(*server.sockets[0].getsockname())
        with sock:
            cpu_s, start_s = time.process_time(), loop.time()
            await loop.sock_sendall(sock, bytes(num_bytes))
            written_s = loop.time()
            took_s = await received - start_s
            cpu_s = time.process_time() - cpu_s
            rtts = []
            for _ in range(pings):
                ping_s = loop.time()
                await loop.sock_sendall(sock, b"!")
                await loop.sock_recv(sock, 1)
                rtts.append(loop.time() - ping_s)
            sock.shutdown(socket.SHUT_WR)
            await loop.sock_recv(sock, 1)
    byte_s = 1 / profile.up.goodput_bytes_per_s + 1 / profile.down.goodput_bytes_per_s
    nominal = profile.up.goodput_bytes_per_s
    goodput = num_bytes / (took_s - profile.up.delay_s)
    return Achieved(
        link=profile.name,
        bytes=num_bytes,
        nominal_bytes_per_s=nominal,
        goodput_bytes_per_s=goodput,
        goodput_error=goodput / nominal - 1,
        nominal_rtt_s=profile.rtt_s + byte_s,
        rtt_s=statistics.median(rtts),
        early_s=start_s + took_s - written_s,
        most_early_s=32_000 / nominal + profile.up.queue_s + profile.up.delay_s,
        p99_late_s=percentile(late, 0.99),
        worst_late_s=dialer.link.up.counters.worst_late_s,
        cpu_s_per_mb=cpu_s / num_bytes * 1e6,
    )
