"""Loading the codecs' compiled loops: those of `featherfed[fast]`, where numba is there and does its work.

Loading takes 0.9 s of CPU and 130 MB, nearly all of it numba's: who has that anyway has these too, others for large
models only. It is done before there is something to do. `FL_FAST=0` does without them.
"""

import functools
import sys
from pathlib import Path
from types import ModuleType

from featherfed.codec import fast
from featherfed.compiling.loading import CompiledPackage

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


def load_for(parameters: int) -> None:
    """Have the compiled loops if that is worth it for a model of so many parameters; seconds, where nothing waits."""
    if parameters >= MANY or "numba" in sys.modules:
        load()


@functools.cache
def load() -> bool:
    """Have the compiled loops where numba is there and does its work; say so once where it fails."""
    module = _LOOPS.load()
    fast.use(None if module is None else module.KERNELS)
    return module is not None
