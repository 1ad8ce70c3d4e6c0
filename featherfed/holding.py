"""A folder that one process at a time may use: a lock that ends with its process, also by kill -9.

`flock(2)` on the file `lock` in it, which names its holder. The file stays when the lock goes: only what the kernel
holds counts. A file system without locks (some network mounts) lets everybody in; that is said, and not refused.
"""

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from featherfed.errors import ConfigError

FILE = "lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def myself() -> str:
    """Return what a lock says of its holder: this process and its machine."""
    return f"process {os.getpid()} on {platform.node()}"


@contextlib.contextmanager
def held(folder: Path, verb: str, way_out: str, *, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder inside this context.

    Raises `ConfigError`, `{folder} is {verb} by process N; {way_out}`, where another process has it, or where it
    cannot be written. `say` hears of a file system that has no locks.
    """
    path = folder / FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder} is {verb} by {_holder(descriptor)}; {way_out}") from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise ConfigError(f"cannot lock {path}: {error.strerror}") from error
            say(f"{folder} lies where files cannot be locked ({error.strerror}): let no other process use it")
        with contextlib.suppress(OSError):
            # On a full disk the lock is as good without its name.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{myself()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        if text:
            return text.removesuffix(f" on {platform.node()}")
    return "another process"
