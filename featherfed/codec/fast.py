"""The compiled loops that this process codes by, if it has loaded them (`fast_loading`).

They have the same bits as numpy's calls, so it is each process's own affair, at any moment.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featherfed.codec.compiled.kernels import Kernels

_kernels: "Kernels | None" = None


class _Trial(threading.local):
    kernels: "Kernels | None" = None


_trial = _Trial()


def kernels() -> "Kernels | None":
    """Return the compiled loops, if they are loaded here."""
    return _kernels if _kernels is not None else _trial.kernels


def use(loops: "Kernels | None") -> None:
    """Code by these loops from now on, or by numpy."""
    global _kernels  # a process has them, or not
    _kernels = loops


@contextlib.contextmanager
def trying(loops: "Kernels | None") -> Iterator[None]:
    """Code by loops that are not loaded yet, in this thread."""
    _trial.kernels = loops
    try:
        yield
    finally:
        _trial.kernels = None
