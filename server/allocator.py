"""What glibc's malloc keeps of memory that was given back, and what Python's collector looks at again and again.

By default it moves the size from which a block is mapped on its own up to that of the largest one that was ever freed.
After one round vectors as long as the model come from heaps, of which each thread has its own, and these only shrink at
their ends: a server of `cnn` then stands 100 MB above what it uses. With the size fixed, a vector's memory goes back
when the vector does. A fresh one costs page faults, a millisecond for `cnn`; what an update needs is used again
(`featherfed/codec/fold.py`).
"""

import ctypes
import functools
import gc
import sys
from typing import Any

MAPPED_FROM = 1 << 20
"""Bytes from which a block is mapped on its own."""
KEPT_AT_END = 4 << 20
"""Bytes that a heap keeps at its end between updates; `give_back_the_rest` takes them too."""
YOUNG = 20_000
"""New objects between two searches for garbage among them. Python's own 700 are those of a few updates."""
HEAPS = 2
"""For the event loop and a thread that works for it: more than two threads never have much to allocate at once."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)


def give_back_vectors() -> None:
    """Let the memory of large blocks go back to the system when they are freed.

    For the whole process: an entry point calls it, before it allocates much. Other allocators are left as they are.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)
        mallopt(_M_TRIM_THRESHOLD, KEPT_AT_END)
        mallopt(_M_ARENA_MAX, HEAPS)


def spare_the_collector() -> None:
    """Keep what is there now, torch's hundreds of thousands of objects, out of every later search for garbage.

    What comes is looked at more rarely: an update leaves some dozens of objects that live until it is written.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def give_back_the_rest() -> None:
    """Return what is free in the middle of heaps too: some milliseconds, at the end of a round."""
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


@functools.cache
def _of_glibc(name: str) -> Any:
    """Return one of glibc's own functions (mallopt(3), malloc_trim(3)), or None where there is another library."""
    if sys.platform != "linux":
        return None
    # musl has none of them, and maps large blocks anyway.
    return getattr(ctypes.CDLL(None), name, None)
