"""Many phones at once: what the relay costs for a fleet, and what virtual time costs for a larger one."""

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass

from featherfed.bandwidth_sim.measure import percentile
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.proxy import Proxy
from lab.memory import resident_bytes

_PEERS = """
import selectors, socket, sys, time
# The phones and the server: all of them in this process, so that the other one does nothing but relay.
count, num_bytes = int(sys.argv[1]), int(sys.argv[2])
server = socket.create_server(("127.0.0.1", 0), backlog=count)
print(server.getsockname()[1], flush=True)
ports = [int(word) for word in sys.stdin.readline().split()]
watch = selectors.DefaultSelector()
left = [num_bytes] * count
for number, port in enumerate(ports):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    watch.register(sock, selectors.EVENT_WRITE, number)
server.setblocking(False)
watch.register(server, selectors.EVENT_READ, None)
received, piece = 0, bytes(8192)
while received < count * num_bytes:
    for key, _ in watch.select():
        if key.fileobj is server:
            peer, _ = server.accept()
            peer.setblocking(False)
            watch.register(peer, selectors.EVENT_READ, -1)
        elif key.data == -1:
            received += len(key.fileobj.recv(1 << 16))
        else:
            left[key.data] -= key.fileobj.send(piece[:left[key.data]])
            if not left[key.data]:
                watch.unregister(key.fileobj)
print("done", flush=True)
sys.stdin.readline()
"""


@dataclass(frozen=True, slots=True)
class RelayLoad:
    """What relaying many phones' uploads at once took: cores as CPU seconds a second, memory a connection in bytes."""

    phones: int
    bytes: int
    seconds: float
    nominal_s: float
    cores: float
    cpu_s_per_mb: float
    memory_bytes: float
    p99_late_s: float


async def relay_load(profile: Profile, phones: int, num_bytes: int) -> RelayLoad:
    """Let so many phones upload `num_bytes` each, every one over its own link; both ends are in another process."""
    peers = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PEERS, str(phones), str(num_bytes), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert peers.stdin is not None and peers.stdout is not None, "they were asked for"
    target = "127.0.0.1", int(await peers.stdout.readline())
    proxies = [Proxy(profile, seed, target) for seed in range(phones)]
    try:
        ports = [(await proxy.listen("127.0.0.1", 0))[1] for proxy in proxies]
        late: list[float] = []
        for proxy in proxies:
            proxy.link.up.lateness = late
        before = resident_bytes("VmRSS")
        cpu_s, began_s = time.process_time(), time.perf_counter()
        peers.stdin.write(f"{' '.join(map(str, ports))}\n".encode())
        await peers.stdout.readline()
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        memory = resident_bytes("VmRSS") - before
        peers.stdin.write(b"\n")
    finally:
        for proxy in proxies:
            await proxy.close()
        await peers.wait()
    return RelayLoad(
        phones=phones,
        bytes=num_bytes,
        seconds=seconds,
        nominal_s=profile.rtt_s + num_bytes / profile.up.goodput_bytes_per_s + profile.up.delay_s,
        cores=cpu_s / seconds,
        cpu_s_per_mb=cpu_s / (phones * num_bytes) * 1e6,
        memory_bytes=memory / phones,
        p99_late_s=percentile(late, 0.99),
    )
