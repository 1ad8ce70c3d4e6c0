"""The kernel's own shaper as a reference: a veth pair between two network namespaces, `tc tbf` on the sender's end."""

import os
import shutil
import subprocess
import sys
import uuid

_SINK = """
import socket, time
server = socket.create_server(("0.0.0.0", 9000))
print("ready", flush=True)
peer, _ = server.accept()
total = 0
while piece := peer.recv(1 << 16):
    total += len(piece)
print(total, time.monotonic(), flush=True)
"""
_SOURCE = """
import socket, sys, time
sock = socket.create_connection(("10.213.0.2", 9000))
print(time.monotonic(), flush=True)
sock.sendall(bytes(int(sys.argv[1])))
sock.shutdown(socket.SHUT_WR)
"""


class KernelRefusedError(RuntimeError):
    """The kernel's shaper cannot be used here; the sentence says why."""


def _ip(*words: str) -> None:
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        raise KernelRefusedError(f"{' '.join(words)}: {result.stderr.strip()}")


def kernel_goodput(rate_bytes_per_s: float, num_bytes: int) -> float:
    """Return goodput in bytes a second of one upload through `tc tbf`; raises `KernelRefusedError` with the reason."""
    if os.geteuid() != 0:
        raise KernelRefusedError("needs root for network namespaces")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise KernelRefusedError(f"{tool} of iproute2 is not installed")
    tag = uuid.uuid4().hex[:6]
    near, far = f"ffn{tag}", f"fff{tag}"
    try:
        for space in (near, far):
            _ip("ip", "netns", "add", space)
        _ip("ip", "link", "add", near, "netns", near, "type", "veth", "peer", "name", far, "netns", far)
        _ip("ip", "-n", near, "addr", "add", "10.213.0.1/24", "dev", near)
        _ip("ip", "-n", far, "addr", "add", "10.213.0.2/24", "dev", far)
        for space in (near, far):
            _ip("ip", "-n", space, "link", "set", space, "up")
        rate = f"{rate_bytes_per_s * 8:.0f}bit"
        shaper = ("tbf", "rate", rate, "burst", "1540", "latency", "400ms")
        _ip("ip", "netns", "exec", near, "tc", "qdisc", "add", "dev", near, "root", *shaper)
        return _upload(near, far, num_bytes)
    finally:
        for space in (near, far):
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


def _upload(near: str, far: str, num_bytes: int) -> float:
    sink_command = ["ip", "netns", "exec", far, sys.executable, "-c", _SINK]
    with subprocess.Popen(sink_command, stdout=subprocess.PIPE, text=True) as sink:
        if sink.stdout is None or sink.stdout.readline() != "ready\n":
            raise KernelRefusedError("the sink did not start")
        source_command = ["ip", "netns", "exec", near, sys.executable, "-c", _SOURCE, str(num_bytes)]
        source = subprocess.run(source_command, capture_output=True, text=True, check=False)
        if source.returncode:
            sink.kill()
            raise KernelRefusedError(f"the upload failed: {source.stderr.strip().splitlines()[-1]}")
        total, ended_s = sink.stdout.readline().split()
    return int(total) / (float(ended_s) - float(source.stdout))
