"""Where in a user's own file a fault is: an error of their code becomes one sentence with its file and line."""

import contextlib
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from featherfed.errors import ConfigError, DataError, FeatherfedError, ProblemError

_HOME = Path(__file__).resolve().parent
_NOT_USERS = {
    str(_HOME),
    # In a checkout the packages' folders lie at the top, and are linked.
    *(os.path.realpath(entry) for entry in _HOME.iterdir() if entry.is_symlink()),
    *(os.path.realpath(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")),
}


@contextlib.contextmanager
def blaming(what: str, function: object = None) -> Iterator[None]:
    """Turn an error of the user's code into `ProblemError`: what failed, where in their file, and why.

    `function` is the user's that is called: where it begins stands for an error that no line of theirs raised.

    Errors of ours pass as they are, with the place where a user's code brought them about: their sentence says enough.
    """
    try:
        yield
    except (ConfigError, DataError) as error:
        place = where(error)
        if type(error) in (ConfigError, DataError) and place:
            raise type(error)(f"{what} ({place}): {error}") from error
        if type(error) is ProblemError and error.__cause__ is None:
            raise ProblemError(f"{what}{_at(place) or place_of(function)}: {error}") from error
        raise
    except FeatherfedError:
        raise
    except (Exception, SystemExit) as error:
        # sys.exit() in a user's loss would end the program, with whatever status, and name nobody.
        raise ProblemError(f"{what}{_at(where(error)) or place_of(function)}: {reason(error)}") from error


def where(error: BaseException) -> str:
    """Return `FILE, line N` of the innermost frame of an error that is the user's own, or an empty text."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}, line {error.lineno}"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for file, line in reversed(frames):
        if _is_users(file):
            return f"{_short(file)}, line {line}"
    return ""


def place_of(function: object) -> str:
    """Return ` (FILE, line N)` where a function or class of the user's is defined, or an empty text."""
    if isinstance(function, type):
        return place_of_class(function)
    code = getattr(function, "__code__", None)
    if code is None or not _is_users(code.co_filename):
        return ""
    return f" ({_short(code.co_filename)}, line {code.co_firstlineno})"


def place_of_class(kind: type) -> str:
    """Return ` (FILE, line N)` of the first method of a class of the user's, or an empty text."""
    codes = [code for method in vars(kind).values() if (code := getattr(method, "__code__", None))]
    users = [code for code in codes if _is_users(code.co_filename)]
    first = min(users, key=lambda code: int(code.co_firstlineno), default=None)
    return "" if first is None else f" ({_short(first.co_filename)}, line {first.co_firstlineno})"


def reason(error: BaseException) -> str:
    """Return an error's kind and its sentence, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:400]}" if lines else type(error).__name__


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def _is_users(file: str) -> bool:
    path = os.path.realpath(file)
    installed = {"site-packages", "dist-packages"} & set(Path(path).parts)
    return not (file.startswith("<") or installed or any(path.startswith(each + os.sep) for each in _NOT_USERS))


def _short(file: str) -> str:
    """Return a path as the user would type it here."""
    with contextlib.suppress(ValueError):
        relative = os.path.relpath(file)
        if not relative.startswith(".."):
            return relative
    return file
