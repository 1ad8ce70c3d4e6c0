"""Where a process spends its time: stacks sampled by py-spy, each counted for the part of the code it stands in."""

import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from featherfed.errors import ConfigError

RATE = 200
"""Samples a second."""
PARTS = (
    ("featherfed/codec", "decode and sum (featherfed.codec)"),
    ("featherfed/randomness.py", "decode and sum (featherfed.codec)"),
    ("numpy/", ""),
    ("sqlalchemy/", "database (SQLAlchemy, SQLite, fsync)"),
    ("server/storage/store.py", "database (SQLAlchemy, SQLite, fsync)"),
    ("websockets/", "WebSocket (websockets)"),
    ("featherfed/wire", "messages and session (featherfed.wire)"),
    ("server/", "service, ledger, round machine (server)"),
    ("asyncio/", "event loop, sockets (asyncio)"),
    ("concurrent/futures", "threads"),
)
"""A path's fragment and the part that it belongs to; an empty part belongs to whoever called it."""
IDLE = ("_worker (concurrent/futures/thread.py", "select (selectors.py", "_run_once (asyncio/base_events.py:18")


class Profiler:
    """Samples a process from `start` to `stop`."""

    def __init__(self, pid: int) -> None:
        """Raises `ConfigError` where py-spy is not installed."""
        program = shutil.which("py-spy")
        if program is None:
            raise ConfigError("--profile needs py-spy: pip install py-spy")
        self._folder = tempfile.TemporaryDirectory(prefix="featherfed-profile-")
        self._file = Path(self._folder.name) / "stacks"
        self._process = subprocess.Popen(
            [program, "record", "--rate", str(RATE), "--format", "raw", "--output", str(self._file), "--pid", str(pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> dict[str, float]:
        """Return each part's share of the time in which the process did something."""
        import signal

        # As Ctrl-C does: py-spy then writes what it has.
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        counts: Counter[str] = Counter()
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        for line in lines:
            stack, _, number = line.rpartition(" ")
            frames = [frame.strip() for frame in stack.split(";")]
            if not any(idle in frames[-1] for idle in IDLE):
                counts[_part(frames)] += int(number)
        self._folder.cleanup()
        total = sum(counts.values()) or 1
        return {part: count / total for part, count in counts.most_common()}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for fragment, part in PARTS:
            if fragment in frame:
                if part:
                    return part
                break
    return "else"
