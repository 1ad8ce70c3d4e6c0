"""Where what was compiled is kept: a folder for each state of the sources, until nobody uses it any more.

`compiled-STATE` lies in `FL_CACHE_DIR`, else in the user's cache, and has a file `used`: it names the folder in which
these sources lie, and is as old as the last use. Whoever makes a new folder removes the others that are not used:
earlier states of the same sources after a day, anybody's after a month. That disturbs no process that still has one:
numba looks for each function by itself, compiles what is not there, and makes the folder anew. `FL_CACHE_DIR` may be a
folder with other things in it: what has another name, or files that numba does not write, is somebody's.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from featherfed.errors import LocalError

COMMON = Path(__file__).parent
"""Sources of ours that others are made of."""
_NAME = re.compile(r"compiled-[0-9a-f]{16}")
USED = "used"
EARLIER_S = 86400.0
"""How long an earlier state of the same sources is kept: who tries two of them in turns compiles neither twice."""
UNUSED_S = 30 * 86400.0


def folder(home: Path) -> Path:
    """Return the folder for what is compiled of the sources in `home`.

    Raises `LocalError` where none can be written.
    """
    sources = b"".join(file.read_bytes() for place in (home, COMMON) for file in sorted(place.glob("*.py")))
    state = hashlib.blake2b(sources, digest_size=8).hexdigest()
    for base in _bases():
        folder = base / f"compiled-{state}"
        with contextlib.suppress(OSError):
            is_new = not folder.exists()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Code is run from it: nobody else may have put it there.
            if not _is_mine(folder):
                continue
            (folder / USED).write_text(f"{home}\n")
            if is_new:
                _remove_unused(base, home, but=folder)
            return folder
    try:
        made = tempfile.mkdtemp(prefix="featherfed-compiled-")
    except OSError as error:
        raise LocalError(f"no folder can be written for what it compiles: {error}") from error
    # Those that this process starts find it there.
    os.environ["FL_CACHE_DIR"] = made
    import atexit

    atexit.register(_remove, made, os.getpid())
    return Path(made)


def _bases() -> Iterator[Path]:
    if named := os.environ.get("FL_CACHE_DIR"):
        yield Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        yield Path(named) / "featherfed"
    with contextlib.suppress(RuntimeError):
        yield Path.home() / ".cache" / "featherfed"


def _is_mine(folder: Path) -> bool:
    return os.name != "posix" or folder.stat().st_uid == os.getuid()


def _is_ours(folder: Path) -> bool:
    """Whether there is nothing in a folder but what numba keeps (`*.nbi`, `*.nbc`, and what it has not finished)."""
    named = _NAME.fullmatch(folder.name) and not folder.is_symlink() and folder.is_dir() and _is_mine(folder)
    files = (file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
    return bool(named) and all(file.name == USED or ".nb" in file.name for file in files)


def _remove_unused(base: Path, home: Path, *, but: Path) -> None:
    for other in base.glob("compiled-*"):
        # Others may remove it meanwhile, or begin to use it.
        with contextlib.suppress(OSError):
            if other != but and _is_ours(other):
                unused_s = time.time() - _last_use_s(other)
                if unused_s > (EARLIER_S if _installation(other) == str(home) else UNUSED_S):
                    shutil.rmtree(other, ignore_errors=True)


def _last_use_s(folder: Path) -> float:
    """Return when a folder was last used, in seconds since 1970; one without `used`: when it was last written to."""
    used = folder / USED
    if used.exists():
        return used.stat().st_mtime
    return max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))


def _installation(folder: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (folder / USED).read_text().strip()
    return ""


def _remove(folder: str, owner: int) -> None:
    """Remove a folder of this process's own; a fork of it leaves it alone."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
