"""Our programs, started as their console scripts start them, also without rights and as process 1."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


def command(program: str, *arguments: str | Path) -> list[str]:
    """The command line of a console script: `program` is server, edge, link or bench."""
    script = f"import sys; from featherfed.programs import {program}; sys.argv[0] = 'fl-{program}'; {program}()"
    return [sys.executable, "-c", script, *map(str, arguments)]


def run(program: str, *arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment(), **options}
    return subprocess.run(command(program, *arguments), **options)


def environment(**more: str) -> dict[str, str]:
    """This one, with our packages to be found whatever folder the process stands in."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}


def unprivileged(program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run without root's right to read and write what modes forbid; skips where root cannot give it up."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
            pytest.skip("needs setpriv, which gives root's rights up: apt-get install util-linux")
    return subprocess.run(
        [*prefix, *command(program, *arguments)], capture_output=True, text=True, timeout=60, env=environment()
    )


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence of a failed command."""
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("Error: "), done.stderr
    return error.removeprefix("Error: ")


class Process1:
    """A program as process 1 of its own process namespace, like in a container without an init; a context manager."""

    def __init__(self, program: str, *arguments: str | Path, **options: Any) -> None:
        if shutil.which("unshare") is None:
            pytest.skip("needs unshare: apt-get install util-linux")
        namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        if subprocess.run([*namespace, "true"], capture_output=True).returncode:
            pytest.skip("needs the right to make a process namespace")
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        self.outer = subprocess.Popen([*namespace, *command(program, *arguments)], env=environment(), **options)

    def __enter__(self) -> "Process1":
        return self

    def __exit__(self, *_: object) -> None:
        self.outer.kill()
        self.outer.wait()
        if self.outer.stdout is not None:
            self.outer.stdout.close()

    @property
    def pid(self) -> int:
        """Its number out here."""
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children")
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            if listed := children.read_text().split():
                return int(listed[0])
            time.sleep(0.01)
        raise AssertionError("unshare has started nothing")

    def wait_for(self, words: str) -> None:
        """Read lines until one has these words."""
        assert self.outer.stdout is not None
        for line in self.outer.stdout:
            if words in line:
                return
        raise AssertionError(f"it never said {words!r}")

    def end(self, number: int, *, within_s: float = 20.0) -> tuple[int, str]:
        """Send a signal; return its exit code and what else it said. A signal that is ignored fails the test."""
        os.kill(self.pid, number)
        output, _ = self.outer.communicate(timeout=within_s)
        return self.outer.returncode, output


def catches(pid: int, number: int = signal.SIGTERM) -> bool:
    """Whether a process has a handler for a signal (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)
