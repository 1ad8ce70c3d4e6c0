"""The kernel's count of what the loopback of this network namespace has carried: TCP and IP headers included."""

from pathlib import Path


def loopback_bytes() -> int:
    """Return the bytes so far (Linux)."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[0])
    return 0
