"""A folder that one process at a time may use."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from featherfed.holding import held

HOLDER = """
import sys
from pathlib import Path
from featherfed.holding import held
with held(Path(sys.argv[1]), "served", "stop that one first", say=print):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, said: list[str] | None = None) -> None:
    with held(folder, "served", "stop that one first", say=(said if said is not None else []).append):
        pass


def test_folder_is_held_by_one_process_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as raised:
            hold(tmp_path)
        assert str(raised.value) == f"{tmp_path} is served by process {process.pid}; stop that one first"
        process.kill()
        process.wait()
        hold(tmp_path)


def test_folder_is_free_again_after_its_holder_and_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    hold(tmp_path)
    with (
        held(tmp_path, "used", "x", say=print),
        pytest.raises(ConfigError, match=f"is served by process {os.getpid()}; stop"),
    ):
        hold(tmp_path)
    hold(tmp_path)


def test_child_that_lives_longer_holds_nothing(tmp_path: Path) -> None:
    with held(tmp_path, "used", "x", say=print):
        script = "print(flush=True); input()"
        child = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
        )
        assert child.stdout is not None
        child.stdout.readline()
    try:
        hold(tmp_path)
    finally:
        child.communicate(b"\n")


def test_file_system_without_locks_lets_everybody_in_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    said: list[str] = []
    hold(tmp_path, said)
    assert said == [f"{tmp_path} lies where files cannot be locked (No locks available): let no other process use it"]


def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*lock: No such file or directory"):
        hold(tmp_path / "missing")
