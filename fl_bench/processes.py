"""Real server and phone processes: started, watched, and always ended by their own pid.

They end with this process too, also where it is killed: see fl_bench/tether.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from featherfed.commandline.streams import open_log
from featherfed.errors import LocalError
from featherfed.server.rounds.farewell import STAY_S

SERVER_LOG = "server.log"
GRACE_S = 10.0


class Processes:
    """The processes of one run; leaving the context ends those that are still there."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._pump: threading.Thread | None = None
        self._over = False  # whether the run is, as the server says
        self._tether = os.pipe()
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._pump is not None:
            self._pump.join(GRACE_S)
        for end in self._tether:
            os.close(end)

    def start_server(self, arguments: Sequence[str], tell: Callable[[dict[str, Any]], None]) -> str:
        """Start `fl-server serve --port 0` with these arguments, return its address once it listens.

        Every event of its JSON log (docs/DASHBOARD.md) goes to `tell`, those after it listens from a thread; the log is
        kept, together with what the server says on standard error. Raises `LocalError` if it does not listen.
        """
        path = self._logs / SERVER_LOG
        path.unlink(missing_ok=True)
        # Both ends append: the server its standard error, this process the events.
        with open(path, "a") as log:
            process = self._start(
                "featherfed.commands.server", "serve", "--port", "0", "--log-format", "json", *arguments,
                stdin=self._tether[0], stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._running["server"] = process
        stdout = process.stdout
        assert stdout is not None, "it was asked for"

        def events() -> Iterator[dict[str, Any]]:
            with stdout, open_log(path, append=True) as log:
                for line in stdout:
                    log.write(line)
                    log.flush()
                    event = json.loads(line)
                    self._over |= event["event"] == "ended"
                    tell(event)
                    yield event

        told = events()
        address = next((event["address"] for event in told if event["event"] == "listening"), None)
        if address is None:
            process.wait()
            raise LocalError(f"fl-server did not start: {path.read_text().strip()}")

        def pump() -> None:
            for _ in told:
                pass

        self._pump = threading.Thread(target=pump, daemon=True)
        self._pump.start()
        return str(address)

    def start_phone(self, name: str, arguments: Sequence[str], command: str = "run") -> subprocess.Popen[str]:
        """Start `fl-edge run` (or `swarm`) with these arguments; what it prints goes to a log of its name."""
        with open(self._logs / f"{name}.log", "w") as log:
            process = self._start(
                "featherfed.edge_client.cli", command, *arguments, stdin=self._tether[0], stdout=log, stderr=log
            )
        self._running[name] = process
        return process

    def _start(self, module: str, *arguments: str, stdin: int, stdout: Any, stderr: Any) -> "subprocess.Popen[str]":
        """Start a module that ends with this process."""
        command = [sys.executable, "-m", "featherfed.fl_bench.tether", module, *arguments]
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, text=True)

    @property
    def server_pid(self) -> int:
        """The server's process id."""
        return self._running["server"].pid

    def signal_server(self, number: int) -> None:
        """Send the server a signal."""
        self._running["server"].send_signal(number)

    def server_memory_bytes(self) -> int:
        """Return the server's own resident memory, without the files that it maps; 0 once it has ended (Linux)."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._running['server'].pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0

    def server_cpu_s(self) -> float:
        """Return the server's processor time so far, user and system (Linux: proc(5), fields 14 and 15)."""
        fields = Path(f"/proc/{self._running['server'].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def lost_phones(self) -> dict[str, str]:
        """Return by name what each phone has said last that has failed so far."""
        lost = {}
        for name, process in self._running.items():
            if name != "server" and process.poll() not in (None, 0):
                said = (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
                last = next((line.strip() for line in reversed(said) if line.strip()), "")
                lost[name] = last.removeprefix("Error: ") or f"ended with status {process.returncode}"
        return lost

    def kill_server(self) -> None:
        """End the server as a crash does."""
        self._running["server"].kill()
        self._running["server"].wait()

    def wait_for_server(self, timeout_s: float | None = None) -> int:
        """Return the server's exit status; raises `LocalError` when all phones are gone before it, or time is up."""
        server = self._running["server"]
        waited_s = alone_s = 0.0
        while True:
            try:
                status = server.wait(1.0)
            except subprocess.TimeoutExpired:
                waited_s += 1.0
                phones = [process for name, process in self._running.items() if name != "server"]
                gone = phones and all(process.poll() is not None for process in phones)
                alone_s = alone_s + 1.0 if gone else 0.0
                # After the last round the phones leave first, and the server stays for those that may not know.
                if alone_s > GRACE_S + STAY_S * self._over:
                    why = next(iter(self.lost_phones().values()), "they left in order")
                    raise LocalError(f"{why}; all phones ended before the server did; see {self._logs}") from None
                if timeout_s is not None and waited_s > timeout_s:
                    raise LocalError(f"the run took longer than {timeout_s:g} s; see {self._logs}") from None
            else:
                if self._pump is not None:
                    self._pump.join(GRACE_S)
                return status
