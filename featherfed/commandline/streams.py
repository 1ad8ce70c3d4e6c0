"""Streams that people read, and that may go away: a pipe's reader ends, a terminal closes, a disk fills.

Two kinds of commands differ in what that means. One that prints an answer has failed: it says so, or is quiet where
the reader had enough (`| head -1`). One that does something while it talks (`keep_on`) loses its words and goes on: a
run is worth more than its log. It says so once, on the other stream.
"""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

NAMES = ("standard input", "standard output", "standard error")


class Stream(io.RawIOBase):
    """The bytes of one descriptor, until they cannot be written any more."""

    def __init__(self, descriptor: int, name: str, *, tell: Callable[[str], None], keep_on: bool = False) -> None:
        """`tell` is given the one sentence about a stream that is lost, where the command keeps on."""
        super().__init__()
        self._descriptor = descriptor
        self._name = name
        self._tell = tell
        self.keep_on = keep_on
        self.error: OSError | None = None
        """Why it is lost."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        """Write what the system takes; a stream that is lost takes everything."""
        while self.error is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                # Whoever shares the pipe made it so; `print` does not expect it.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
                if not self.keep_on:
                    raise
                self._tell(f"{self.sentence}; what is said there is lost, and the command goes on")
        return len(data)

    @property
    def sentence(self) -> str:
        """What is wrong with it."""
        assert self.error is not None, "asked of a stream that is lost"
        reason = "its reader is gone" if self.error.errno == errno.EPIPE else self.error.strerror
        return f"cannot write {self._name}: {reason}"


_kept: list[Stream] = []
"""The standard streams of this process, while they are guarded."""


def occupy() -> None:
    """Open /dev/null in place of a standard descriptor that is closed, or a socket or a database would get its number.

    What a child or a library prints there would go into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)


def keep_on() -> None:
    """Let the streams of this command get lost from now on: it does more than talk."""
    for stream in _kept:
        stream.keep_on = True


@contextlib.contextmanager
def guarded(*, tells: bool = True) -> Iterator[None]:
    """Guard this process's standard output and error inside this context, unless something stands in for them.

    They are never strict about letters: a name that the terminal's encoding lacks is spelled with backslashes.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield
        return
    occupy()
    before = sys.stdout, sys.stderr

    def tell_out(sentence: str) -> None:
        if tells:
            _say(texts[1], sentence)

    def tell_error(sentence: str) -> None:
        if tells:
            _say(texts[0], sentence)

    raws = [Stream(1, NAMES[1], tell=tell_out), Stream(2, NAMES[2], tell=tell_error)]
    texts = [_text(raw, old) for raw, old in zip(raws, before, strict=True)]
    sys.stdout, sys.stderr = texts
    _kept[:] = raws
    try:
        yield
    finally:
        for text in texts:
            with contextlib.suppress(OSError):
                text.flush()
        _kept.clear()
        sys.stdout, sys.stderr = before


def failure(error: OSError) -> str | None:
    """Return what to say of a standard stream whose loss this error is, None for any other error."""
    return next((stream.sentence for stream in _kept if stream.error is error), None)


def open_log(path: Path, *, append: bool = False) -> TextIO:
    """Open a file that people read; where it cannot be written any more, standard error says so once."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
    descriptor = os.open(path, flags, 0o666)

    class _Owned(Stream):
        def close(self) -> None:
            if not self.closed:
                super().close()
                os.close(descriptor)

    raw = _Owned(descriptor, str(path), tell=lambda sentence: _say(sys.stderr, sentence), keep_on=True)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")  # type: ignore[type-var]


def _text(raw: Stream, old: TextIO | None) -> io.TextIOWrapper:
    encoding, errors = "utf-8", "backslashreplace"
    if old is not None:
        old.flush()
        encoding = old.encoding
        if encoding.lower().replace("-", "") == "utf8" and old.errors not in (None, "strict"):
            errors = old.errors or errors
    # Lines at once: whoever reads a pipe waits for them, and what is said on both streams keeps its order.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True)  # type: ignore[type-var]


def _say(text: TextIO, sentence: str) -> None:
    # In the middle of another write to it, it cannot take this too.
    with contextlib.suppress(OSError, RuntimeError):
        print(sentence, file=text, flush=True)
