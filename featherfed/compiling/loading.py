"""Whether this process has what is compiled by numba, of `featherfed[fast]`: loaded with a check, or why not.

It is compiled once for a processor and kept in a folder, `FL_CACHE_DIR` or the user's cache; where none can be
written, in one of this process's own, which those that it starts share. `FL_FAST=0` does as if numba were not there.
"""

import contextlib
import errno
import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from featherfed.compiling import kept_folder
from featherfed.errors import LocalError

WITHOUT = ("0", "no", "off", "false")
"""What FL_FAST says to do as if numba were not there."""
_LOADING = threading.Lock()
"""While numba keeps things in the folder of one of ours."""


@dataclass(frozen=True, slots=True)
class CompiledPackage:
    """A package of ours that numba compiles: its sources are in `home`, and the module has a function `check`."""

    home: Path
    module: Callable[[], ModuleType]
    """Imports what others use of it."""
    without: str
    """What is said where it cannot be had, as in "phones train without compiled passes"."""
    first: str
    """What is said while it is compiled for the first time."""

    def load(self) -> ModuleType | None:
        """Import the module and have its check run; None, and one sentence, where numba fails."""
        if os.environ.get("FL_FAST", "").strip().lower() in WITHOUT or importlib.util.find_spec("numba") is None:
            return None
        folder: Path | None = None
        try:
            with _LOADING, kept_in(self.home) as folder:
                module = self.module()
            self.run_check(module.check, folder)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                where = "" if folder is None else f" in {folder}"
                say(
                    f"{self.without}, since there is no room{where} to keep them: name another folder by"
                    " FL_CACHE_DIR; FL_FAST=0 does without them"
                )
            else:
                say(f"{self.without}, since numba fails: {sentence(error)}; FL_FAST=0 does without it")
            return None
        return module

    def run_check(self, check: Callable[[], None], folder: Path) -> None:
        """Run the check, which compiles what is not kept, and once more without what is kept and cannot be read."""
        kept = _kept(folder)
        if not kept and sys.stderr is not None and sys.stderr.isatty():
            say(f"compiles {self.first}")
        try:
            check()
        except (LocalError, OSError, MemoryError):
            # Another result, or no room to write: it would be the same again.
            raise
        except Exception:
            if not kept:
                raise
            # Cut short, as when the power goes: it would be in the way at each start.
            for file in _kept(folder):
                file.unlink(missing_ok=True)
            check()


def _kept(folder: Path) -> list[Path]:
    """Return what numba keeps in a folder: the index of a function, and its code."""
    return [*folder.rglob("*.nbi"), *folder.rglob("*.nbc")]


@functools.cache
def say(sentence: str) -> None:
    """Say a sentence, once in this process, if somebody may hear it: without a stderr, `print` would take stdout."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"featherfed: {sentence}", file=sys.stderr, flush=True)


def sentence(error: Exception) -> str:
    """Return an error in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


@contextlib.contextmanager
def kept_in(home: Path) -> Iterator[Path]:
    """Have numba keep what it compiles of functions that are made meanwhile in our folder for the sources in `home`.

    Its own, beside the source, may be read-only or nobody's, and it sees a change of the file with a function alone.
    """
    folder = kept_folder.folder(home)
    from numba.core import config

    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        yield folder
    finally:
        config.CACHE_DIR = before
