"""Whether this process trains by compiled passes: those of `featherfed[fast]`, where numba is there and does its work.

Two ways to the same gradient differ in the last bits. So one process decides for a run, and `agree` holds those that
work for it to that, or refuses.
"""

import functools
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from featherfed.codec import fast_loading
from featherfed.compiling.loading import CompiledPackage, say, sentence
from featherfed.errors import ConfigError

if TYPE_CHECKING:
    from featherfed.learning.compiled.compiled_passes import Compiled
    from featherfed.learning.flat import FlatModel


def _module() -> ModuleType:
    import featherfed.learning.compiled.compiled_passes as module

    return module


_PASSES = CompiledPackage(
    home=Path(__file__).parent / "compiled",
    module=_module,
    without="phones train without compiled passes",
    first="how phones train, once for this processor: some 15 s",
)
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
        say(f"this model trains without compiled passes, since numba fails: {sentence(error)}")
        return None


@functools.cache
def _loaded() -> str:
    module = _PASSES.load()
    if module is None:
        return "torch"
    import numba

    # What numba costs is paid.
    fast_loading.load()
    return f"numba {numba.__version__}, vectors of {module.LANES}"
