"""A user's own module or file, imported with the folder that it is in; whatever is wrong with it is one sentence.

What is named `module:attribute` is found in the current folder or among what is installed, `./file.py:attribute` where
it says. The current folder can be imported from for this and only this.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from featherfed.errors import ConfigError, ProblemError
from featherfed.user_code import reason, where


def import_source(source: str, what: str) -> ModuleType:
    """Return the module of a name or of a path to a file; `what` begins each sentence, like `--plugin mytask`.

    Raises `ConfigError` where there is none, and `ProblemError` where it cannot be imported, with file and line.
    """
    with importing(what, source):
        if source.endswith(".py") or "/" in source:
            return _import_file(Path(source), what)
        with _here():
            return importlib.import_module(source)


def import_plugins(sources: Iterable[str]) -> None:
    """Import the modules that `--plugin` names, for what they register; each once."""
    for source in sources:
        import_source(source, f"--plugin {source}")


@contextmanager
def importing(what: str, source: str) -> Iterator[None]:
    """Turn what an import raises into a sentence that begins with `what`."""
    try:
        yield
    except ConfigError as error:
        # What a class of ours refuses, with the user's line that made it.
        if place := where(error):
            raise ProblemError(f"{what} ({place}): {error}") from error
        raise
    except ModuleNotFoundError as error:
        if error.name and (source == error.name or source.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{what}: there is no module {error.name!r} in {Path.cwd()} or among the installed ones; a file is"
                f" named by its path in place of the module, like ./{error.name.rpartition('.')[2]}.py"
            ) from error
        raise _fault(what, error) from error
    except (Exception, SystemExit) as error:
        raise _fault(what, error) from error


def _fault(what: str, error: BaseException) -> ProblemError:
    place = where(error)
    return ProblemError(f"{what} cannot be imported{f' ({place})' if place else ''}: {reason(error)}")


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{what}: there is no file {path}")
    resolved = path.resolve()
    known = sys.modules.get(resolved.stem)
    if known is not None and getattr(known, "__file__", None) == str(resolved):
        return known
    # A stem that is something else's already must not take its place; where an import of the stem would find this very
    # file, both are one module, or what it registers would be registered twice.
    free = known is None and _found(resolved.stem) in (None, str(resolved))
    called = resolved.stem if free else f"_{resolved.stem.replace('.', '_')}"
    if (known := sys.modules.get(called)) is not None and getattr(known, "__file__", None) == str(resolved):
        return known
    spec = importlib.util.spec_from_file_location(called, resolved)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    try:
        with _here(resolved.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    return module


def _found(stem: str) -> str | None:
    """Return which file an import of a name would find, None for none; an empty text where it could not be imported so.

    With a dot in it, as in task.v2.py, the name would be that of a part of a package, which must not be imported.
    """
    if "." in stem:
        return ""
    spec = importlib.util.find_spec(stem)
    return None if spec is None else spec.origin or ""


@contextmanager
def _here(folder: Path | None = None) -> Iterator[None]:
    """Let imports find a folder's files first; later imports of the same files find them after all else."""
    path = str((folder or Path.cwd()).resolve())
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(path)
        if path not in sys.path:
            sys.path.append(path)
