"""Memory and processor time of a tree of processes, as Linux counts them.

Shared pages are divided among those who share them (PSS).
"""

import os
from pathlib import Path

from featherfed.errors import LocalError


def tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in parentheses, may hold anything.
            after = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(after[1]), []).append(int(status.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def proportional_bytes(pids: list[int]) -> int:
    """Return the sum of the processes' proportional set sizes; raises `LocalError` where the kernel tells none."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except FileNotFoundError as error:
            if not Path("/proc/self/smaps_rollup").exists():
                raise LocalError("this system does not tell how much memory processes share; Linux does") from error
            continue
        except ProcessLookupError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def resident_bytes(field: str) -> int:
    """Return `VmRSS` or `VmHWM` (the peak since it was last cleared) of this process.

    Not getrusage's peak: that of a child begins with its parent's. Raises `LocalError` where the kernel tells none.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise LocalError("this system does not tell how much memory a process has; Linux does") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def cpu_s(pids: list[int]) -> float:
    """Return the processes' processor time so far, that of children which have ended included (proc(5), stat)."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
