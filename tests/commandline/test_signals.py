"""Ctrl-C and SIGTERM at any moment of any command, also where the kernel would ignore them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from featherfed.commandline.program import Program
from featherfed.server.config import RunConfig
from featherfed.server.storage.run_folder import create
from featherfed.server.storage.store import Store
from tests.commandline.commands import Process1, catches, command, environment


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A server that never answers: who has connected to it has begun."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.settimeout(60)
        yield listening


def phones(deaf: socket.socket) -> list[str]:
    return ["--train", "none", "--server", f"ws://127.0.0.1:{deaf.getsockname()[1]}"]


def a_run(runs: Path) -> Path:
    folder = create(runs, "mine", RunConfig())
    Store(folder.database).close()
    return runs


def arguments(kind: str, tmp_path: Path, deaf: socket.socket) -> tuple[str, list[str], str]:
    """The program, its arguments, and what it says when it has begun; a phone says nothing, and connects."""
    known = {
        "run": ("edge", ["run", *phones(deaf)], ""),
        "swarm": ("edge", ["swarm", "--count", "2", *phones(deaf)], ""),
        "proxy": ("link", ["proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9"], "listening on"),
        "dashboard": ("server", ["dashboard", str(tmp_path / "runs"), "--dashboard", "127.0.0.1:0"], "the page is on"),
        "serve": (
            "server",
            ["serve", "--problem", "digits", "--port", "0", "--no-dashboard", "--runs", str(tmp_path / "new")],
            "listening on",
        ),
        "bench": ("bench", ["run", str(tmp_path / "slow.toml"), "--out", str(tmp_path / "out")], "connected"),
    }
    if kind == "dashboard":
        a_run(tmp_path / "runs")
    if kind == "bench":
        (tmp_path / "slow.toml").write_text('problem = "digits/tiny"\nphones = 1\nrounds = 100000\ntrain = "none"\n')
    return known[kind]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("kind", "code"), [("run", 130), ("swarm", 130), ("proxy", 0), ("dashboard", 0), ("serve", 0), ("bench", 130)]
)
def test_process_1_ends_by_either_signal_as_it_does_by_control_c(
    kind: str, code: int, number: int, tmp_path: Path, deaf: socket.socket
) -> None:
    program, given, words = arguments(kind, tmp_path, deaf)
    with Process1(program, *given) as process:
        if words:
            process.wait_for(words)
        else:
            deaf.accept()[0].close()
        status, output = process.end(number)
    assert "Traceback" not in output
    assert status == code, output


def forget_those_before(deaf: socket.socket) -> None:
    """Take from the queue who connected in an earlier turn: the next one to come is of the process that is started."""
    patience_s = deaf.gettimeout()
    deaf.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            deaf.accept()[0].close()
    deaf.settimeout(patience_s)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_a_whole_terminal_leaves_no_traceback_of_a_swarm(number: int, deaf: socket.socket) -> None:
    # Ctrl-C reaches every process of the terminal's group: the swarm, its workers and what they are forked from.
    for wait_s in (0.1, 0.4, None):
        forget_those_before(deaf)
        process = subprocess.Popen(
            command("edge", "swarm", "--count", "3", "--workers", "2", *phones(deaf)[2:]),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment(),
        )  # fmt: skip
        try:
            if wait_s is None:
                deaf.accept()[0].close()
            else:
                while not catches(process.pid):
                    time.sleep(0.005)
                time.sleep(wait_s)
            os.killpg(process.pid, number)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in output
        assert process.returncode in (130, 128 + number)


@pytest.mark.parametrize("kind", ["run", "swarm", "proxy", "dashboard", "serve"])
def test_signal_at_any_moment_of_the_start_leaves_no_traceback(kind: str, tmp_path: Path, deaf: socket.socket) -> None:
    program, given, _ = arguments(kind, tmp_path, deaf)
    for step in range(12):
        process = subprocess.Popen(
            command(program, *given),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment(),
        )  # fmt: skip
        try:
            while not catches(process.pid):
                time.sleep(0.002)
            time.sleep(0.06 * step)
            os.killpg(process.pid, signal.SIGINT if step % 2 else signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in output, (step, output)
        assert process.returncode in (0, 130, 143), (step, output)


@pytest.mark.parametrize("moment", ["flags", "command"])
def test_signal_while_flags_are_read_or_the_command_runs_is_no_failure(
    moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """click by itself says "Aborted!" of the first, and exits with 1."""

    def struck(at: str) -> None:
        if at == moment:
            raise KeyboardInterrupt

    program = Program("fl-any", callback=lambda **flags: None)
    program.params.append(click.Option(["--flag"], default="x", callback=lambda ctx, param, value: struck("flags")))
    program.add_command(click.Command("do", callback=lambda: struck("command")))
    with pytest.raises(SystemExit) as ended:
        program.main(["do"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stored_page_that_is_open_somewhere_ends_without_a_traceback(number: int, tmp_path: Path) -> None:
    given = ["dashboard", str(a_run(tmp_path / "runs")), "--dashboard", "127.0.0.1:0"]
    process = subprocess.Popen(
        command("server", *given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as page:
            page.sendall(b"GET /api/runs/mine/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"200 OK" in page.recv(4096)
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert output == ""


def test_second_signal_while_it_closes_changes_nothing(tmp_path: Path, deaf: socket.socket) -> None:
    program, given, words = arguments("serve", tmp_path, deaf)
    process = subprocess.Popen(
        command(program, *given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    assert process.stdout is not None
    try:
        assert words in process.stdout.readline()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output
    assert process.returncode in (0, 130)


def test_background_job_that_must_not_hear_control_c_ends_by_sigterm(deaf: socket.socket) -> None:
    ignoring = "import os, signal, sys; signal.signal(2, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, *command("edge", "run", *phones(deaf))],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip
    try:
        deaf.accept()[0].close()
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "measurement",
    [
        command("link", "test", "--bandwidth", "100kbps", "--seconds", "60"),
        [sys.executable, "-m", "lab", "ingest"],
    ],
    ids=["link test", "lab ingest"],
)
def test_control_c_in_the_middle_of_a_measurement_leaves_no_traceback(measurement: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        measurement, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env=environment(),
    )  # fmt: skip
    try:
        time.sleep(3)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=45)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output, output
    assert process.returncode == 130
