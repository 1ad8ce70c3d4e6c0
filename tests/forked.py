"""Our commands in processes that were forked from one which has their modules already.

What a server or a phone imports takes it three seconds of a processor, torch above all. A test that is about something
else, and needs processes of its own that can be killed, is given some that find their imports done: from there on each
is what `fl_bench.tether` makes of a process, the same module with the same arguments.
"""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from featherfed.fl_bench.processes import Processes

IMPORTED = (
    "torch", "numba", "scipy.linalg.cython_blas", "featherfed.commands.tree", "featherfed.server.serving",
    "featherfed.learning.evaluation", "featherfed.server.dashboard.serving", "featherfed.server.phone_page.opening",
    "featherfed.server.phone_page.invitation", "featherfed.gateway.tree", "featherfed.gateway.serving",
    "featherfed.edge_client.one_phone", "featherfed.edge_client.swarm", "featherfed.edge_client.learner",
)  # fmt: skip
"""What commands import; not the modules of the commands themselves, which are run."""
MESSAGE_BYTES = 1 << 20


class Forked:
    """A process that was forked, with what `Processes` asks of a `subprocess.Popen`."""

    def __init__(self, zygote: "Zygote", pid: int, stdout: TextIO | None = None) -> None:
        self._zygote = zygote
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._zygote.status(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until_s = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if until_s is not None and time.monotonic() > until_s:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        # Until its status was asked for, the number is nobody else's.
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The process that has the modules; it ends when it is closed, or with the one that made it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        root = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": root}, stdin=subprocess.DEVNULL
        )
        theirs.close()

    def start(self, arguments: Sequence[str], stdin: int, stdout: int, stderr: int) -> int:
        """Fork; the child runs `fl_bench.tether` with these arguments, here and in this environment. Return its pid."""
        order = {"arguments": list(arguments), "folder": os.getcwd(), "environment": dict(os.environ)}
        return int(self._ask(order, [stdin, stdout, stderr]))

    def status(self, pid: int) -> int | None:
        """Return the exit status of a child, negative where a signal ended it; None while it runs."""
        return self._ask({"pid": pid}, [])

    def close(self) -> None:
        """End it; its children are tied to other ends."""
        self._socket.close()
        self._process.wait()

    def _ask(self, what: dict[str, Any], files: list[int]) -> Any:
        socket.send_fds(self._socket, [json.dumps(what).encode()], files)
        return json.loads(self._socket.recv(MESSAGE_BYTES))


@functools.cache
def zygote() -> Zygote:
    """Return the one of this process."""
    made = Zygote()
    atexit.register(made.close)
    return made


class ForkedProcesses(Processes):
    """The processes of a run, which are forked."""

    def _start(self, module: str, *arguments: str, stdin: int, stdout: Any, stderr: Any) -> Any:
        if stdout is not subprocess.PIPE:
            pid = zygote().start([module, *arguments], stdin, stdout.fileno(), stderr.fileno())
            return Forked(zygote(), pid)
        reading, writing = os.pipe()
        pid = zygote().start([module, *arguments], stdin, writing, stderr.fileno())
        os.close(writing)
        return Forked(zygote(), pid, open(reading))


def _children(line: socket.socket) -> list[str]:
    """Fork for whoever asks on the line; return in each child, with its arguments, and end when the line is closed."""
    while True:
        data, files, _, _ = socket.recv_fds(line, MESSAGE_BYTES, 3)
        if not data:
            sys.exit()
        order = json.loads(data)
        if "pid" in order:
            pid, status = os.waitpid(order["pid"], os.WNOHANG)
            line.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
        elif child := os.fork():
            for file in files:
                os.close(file)
            line.send(json.dumps(child).encode())
        else:
            line.close()
            for end, file in enumerate(files):
                os.dup2(file, end)
                os.close(file)
            os.chdir(order["folder"])
            os.environ.clear()
            os.environ.update(order["environment"])
            if "PYTHONSAFEPATH" not in os.environ:
                # As `python -m` does.
                sys.path.insert(0, order["folder"])
            return list(order["arguments"])


if __name__ == "__main__":
    from importlib import import_module

    from featherfed.fl_bench import tether

    for name in IMPORTED:
        import_module(name)
    sys.argv[1:] = _children(socket.socket(fileno=int(sys.argv[1])))
    tether.main()
