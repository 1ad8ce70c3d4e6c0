"""Whether this process codes by compiled loops: those of `featherfed[fast]`, where it has loaded them.

They have the same bits as numpy's calls, so it is each process's own affair, at any moment. Loading takes 0.9 s of CPU
and 130 MB, nearly all of it numba's: who has that anyway has these too, others for large models only. It is done before
there is something to do. `FL_FAST=0` does without them.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from featherfed.compiling.loading import CompiledPackage

if TYPE_CHECKING:
    from featherfed.codec.compiled.kernels import Kernels

MANY = 1 << 17
"""Parameters of a model for whose updates alone numba is worth loading."""


def _module() -> ModuleType:
    import featherfed.codec.compiled.kernels as module

    return module


_LOOPS = CompiledPackage(
    home=Path(__file__).parent / "compiled",
    module=_module,
    without="updates are coded without compiled loops",
    first="how updates are coded, once for this processor: some 10 s",
)
_kernels: "Kernels | None" = None


class _Trial(threading.local):
    kernels: "Kernels | None" = None


_trial = _Trial()


def kernels() -> "Kernels | None":
    """Return the compiled loops, if they are loaded here."""
    return _kernels if _kernels is not None else _trial.kernels


def load_for(parameters: int) -> None:
    """Have the compiled loops if that is worth it for a model of so many parameters; seconds, where nothing waits."""
    if parameters >= MANY or "numba" in sys.modules:
        load()


@functools.cache
def load() -> bool:
    """Have the compiled loops where numba is there and does its work; say so once where it fails."""
    global _kernels  # a process has them, or not
    module = _LOOPS.load()
    _kernels = None if module is None else module.KERNELS
    return module is not None


@contextlib.contextmanager
def trying(loops: "Kernels | None") -> Iterator[None]:
    """Code by loops that are not loaded yet, in this thread."""
    _trial.kernels = loops
    try:
        yield
    finally:
        _trial.kernels = None
