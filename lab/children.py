"""Processes of the lab, and what can be told of them from outside."""

import os
import socket
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment and `more`, with the checkout among the folders that Python imports from.

    The lab is not installed: its own processes find it in this way, wherever they are started.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of this machine's loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
