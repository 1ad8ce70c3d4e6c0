"""Ctrl-C and SIGTERM: one meaning, at any moment of a command.

A command is in one of three states:

- while modules are loaded (`loading`), both end the process at once and quietly: an import that is broken off midway
  may raise anything;
- after that (`interruptible`) both raise KeyboardInterrupt in the main thread, or cancel what `asyncio.run` runs;
- on an event loop that knows how to end in order (`stopping`), both call its `stop`.

Nothing is left to the system's default, which is to ignore: that is what the kernel does for process 1 of a container.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# SIGTERM first: between the two, it must never find a SIGINT that does nothing by itself (`_interrupt`).
NUMBERS = (signal.SIGTERM, signal.SIGINT)


def end_at_once() -> None:
    """Let both end the process without a word from now on; one that the parent ignores stays ignored."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import inside this context."""
    with _restored():
        if _here():
            end_at_once()
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Run a command inside this context."""
    with _restored():
        if _here():
            # A shell lets its background jobs ignore SIGINT; SIGTERM is for them.
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
                signal.signal(signal.SIGTERM, _interrupt)
        yield


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Let both call `stop` on the running event loop, as often as they come."""
    import asyncio

    loop = asyncio.get_running_loop()
    added = []
    with _restored():
        for number in NUMBERS:
            # Not on every platform's loop, nor in a thread: there they do what they did.
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, stop)
                added.append(number)
        try:
            yield
        finally:
            for number in added:
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Start processes inside this context that Ctrl-C in a terminal does not reach: their parent ends them."""
    # When multiprocessing starts its tracker, with its first process, it lets both signals through again: so it is
    # started before they are held back.
    if "multiprocessing" in sys.modules:
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what SIGINT does now: `asyncio.run` has a handler of its own."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


def _here() -> bool:
    """Whether this thread may set handlers."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield
    finally:
        if _here():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
