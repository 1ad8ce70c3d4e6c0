"""Whether this process trains by compiled passes: those of `featherfed[fast]`, where numba is there and does its work.

They are compiled once for a processor and kept in a folder, `FL_CACHE_DIR` or the user's cache; where none can be
written, in one of this process's own, which those that it starts share. `FL_FAST=0` trains as if numba were not there.

Two ways to the same gradient differ in the last bits. So one process decides for a run, and `agree` holds those that
work for it to that, or refuses.
"""

import contextlib
import errno
import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from featherfed.errors import ConfigError, LocalError
from featherfed.learning import compiled_folder

if TYPE_CHECKING:
    from featherfed.learning.compiled.compiled_passes import Compiled
    from featherfed.learning.flat import FlatModel

_agreed: str | None = None
_LOADING = threading.Lock()


def passes() -> str:
    """Return what this process trains chains of layers by: `numba` with its version, or `torch`."""
    return _agreed if _agreed is not None else _here()


def _here() -> str:
    with _LOADING:
        return _loaded()


def agree(name: str) -> None:
    """Train by what another process named with `passes`; raises `ConfigError` where that cannot be had here."""
    global _agreed  # a process works for one run
    if name != "torch" and (here := _here()) != name:
        raise ConfigError(f"the run's phones train by {name}, and this process has {here}")
    _agreed = name


def compiled_passes(model: "FlatModel", shape: tuple[int, ...]) -> "Compiled | None":
    """Return the compiled passes of a chain that fits `backprop.py`, for inputs of one shape, or None.

    A chain for which numba fails is trained by torch, in every process of a run alike, and this one says so once.
    """
    if model.weights.device.type != "cpu" or passes() == "torch":
        return None
    if not all(parameter.requires_grad for parameter in model.module.parameters()):
        # They read their weights from the flat vector, which has none of a frozen layer.
        return None
    from featherfed.learning.compiled.compiled_passes import Compiled

    try:
        return Compiled.of(model, shape)
    except MemoryError:
        # It is this moment's and not the model's: the run must not go on with other bits.
        raise
    except Exception as error:
        _say(f"this model trains without compiled passes, since numba fails: {_sentence(error)}")
        return None


WITHOUT = ("0", "no", "off", "false")
"""What FL_FAST says to train as if numba were not there."""


@functools.cache
def _loaded() -> str:
    if os.environ.get("FL_FAST", "").strip().lower() in WITHOUT or importlib.util.find_spec("numba") is None:
        return "torch"
    folder: Path | None = None
    try:
        with _cache() as folder:
            import numba

            import featherfed.learning.compiled.compiled_passes as compiled

        _check(compiled.check, folder)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = "" if folder is None else f" in {folder}"
            _say(
                f"phones train without compiled passes, since there is no room{where} to keep them: name another folder"
                " by FL_CACHE_DIR; FL_FAST=0 does without them"
            )
            return "torch"
        _say(f"phones train without compiled passes, since numba fails: {_sentence(error)}; FL_FAST=0 does without it")
        return "torch"
    return f"numba {numba.__version__}, vectors of {compiled.LANES}"


def _check(check: Callable[[], None], folder: Path) -> None:
    """Run the check, which compiles what is not kept, and once more without what is kept and cannot be read."""
    kept = _kept(folder)
    if not kept and sys.stderr is not None and sys.stderr.isatty():
        _say("compiles how phones train, once for this processor: some 15 s")
    try:
        check()
    except (LocalError, OSError, MemoryError):
        # Another gradient, or no room to write: it would be the same again.
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
def _say(sentence: str) -> None:
    """Say a sentence, once in this process, if somebody may hear it: without a stderr, `print` would take stdout."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"featherfed: {sentence}", file=sys.stderr, flush=True)


def _sentence(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


@contextlib.contextmanager
def _cache() -> Iterator[Path]:
    """Have numba keep what it compiles meanwhile in our folder; one for each state of the sources.

    Its own, beside the source, may be read-only or nobody's, and it sees a change of the file with a function alone.
    """
    from numba.core import config

    before = config.CACHE_DIR
    folder = compiled_folder.folder()
    config.CACHE_DIR = str(folder)
    try:
        yield folder
    finally:
        config.CACHE_DIR = before
