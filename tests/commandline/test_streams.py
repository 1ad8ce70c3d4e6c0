"""Standard streams that are closed, full or left by their reader: an answer fails, a run goes on."""

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featherfed.commandline.streams import Stream, open_log
from tests.commandline.commands import command, environment, run, sentence

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def test_lost_stream_takes_everything_and_is_told_once() -> None:
    reading, writing = os.pipe()
    told: list[str] = []
    stream = Stream(writing, "standard output", tell=told.append, keep_on=True)
    assert stream.write(b"one") == 3
    os.close(reading)
    assert stream.write(b"four") == stream.write(b"five") == 4
    assert told == [
        "cannot write standard output: its reader is gone; what is said there is lost, and the command goes on"
    ]
    os.close(writing)


def test_stream_of_an_answer_raises_once_and_is_quiet_when_it_is_closed() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = Stream(writing, "standard output", tell=lambda sentence: None)
    text = io.TextIOWrapper(io.BufferedWriter(stream))  # type: ignore[type-var]
    with pytest.raises(BrokenPipeError):
        print("an answer", file=text, flush=True)
    text.close()
    os.close(writing)


def test_pipe_that_does_not_block_gets_all_of_a_long_text() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    script = "import os, sys; left = 1 << 20\nwhile left: left -= len(os.read(0, left))"
    with subprocess.Popen([sys.executable, "-c", script], stdin=reading) as reader:
        buffered = io.BufferedWriter(Stream(writing, "x", tell=lambda sentence: None))  # type: ignore[type-var]
        buffered.write(b"x" * (1 << 20))
        buffered.flush()
        assert reader.wait(30) == 0
    os.close(reading)
    os.close(writing)


@needs_full
def test_log_on_a_full_disk_is_lost_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    with open_log(FULL) as log:
        for _ in range(3):
            print("a line", file=log, flush=True)
    assert capsys.readouterr().err.count("cannot write /dev/full: No space left on device") == 1


def test_answer_whose_reader_had_enough_ends_quietly() -> None:
    shell = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *command("link", "list")],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip
    assert shell.stderr == ""
    assert shell.returncode in (0, 1)


@needs_full
def test_answer_that_cannot_be_written_is_a_failure_that_says_so() -> None:
    with open(FULL, "w") as full:
        done = run("link", "list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert sentence(done) == "cannot write standard output: No space left on device"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_stream_is_no_place_for_a_socket_or_a_file(closed: str) -> None:
    shell = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "-", *command("server", "models", "digits/lite")],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip
    assert shell.returncode == 0
    assert shell.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_terminal_lacks_are_spelled(encoding: str) -> None:
    done = run("server", "models", "digits/lite", env=environment(PYTHONIOENCODING=encoding), text=False)
    assert done.returncode == 0, done.stderr
    assert b"a.weight" in done.stdout
    failed = run("server", "models", "größe☃", env=environment(PYTHONIOENCODING=encoding), text=False)
    assert failed.returncode == 2
    assert b"unknown problem" in failed.stderr


async def served_without_a_reader(tmp_path: Path, stdout: int, more: list[str]) -> tuple[int, str]:
    """Serve a round for one phone while nobody reads the log; return the exit code and standard error."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = ["serve", "--problem", "digits/lite", "--phones", "1", "--rounds", "2", "--port", str(port),
             "--runs", str(tmp_path), "--name", "mine", "--no-dashboard", *more]  # fmt: skip
    server = await asyncio.create_subprocess_exec(
        *command("server", *serve), stdout=stdout, stderr=asyncio.subprocess.PIPE, env=environment()
    )
    phone = await asyncio.create_subprocess_exec(
        *command("edge", "run", "--train", "none", "--server", f"ws://127.0.0.1:{port}"),
        stdout=stdout, stderr=asyncio.subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            _, said = await server.communicate()
            await phone.wait()
    finally:
        for process in (server, phone):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert server.returncode is not None
    assert phone.returncode == 0
    return server.returncode, said.decode()


@pytest.mark.processes
@pytest.mark.parametrize(("kind", "more"), [("reader gone", []), ("disk full", ["--log-format", "json"])])
async def test_run_outlives_its_log_and_says_so_once(kind: str, more: list[str], tmp_path: Path) -> None:
    if kind == "reader gone":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(FULL, os.O_WRONLY)
    try:
        status, said = await served_without_a_reader(tmp_path, writing, more)
    finally:
        os.close(writing)
    assert status == 0, said
    assert said.count("cannot write standard output") == 1
    assert "Traceback" not in said
    report = run("server", "report", tmp_path / "mine", "--json")
    assert [row["state"] for row in json.loads(report.stdout)["rounds"]] == ["closed", "closed"]
