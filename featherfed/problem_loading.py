"""A problem by its name: `module:attribute`, `path/file.py:attribute`, or one that is installed, like `mnist/2nn`."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from featherfed.errors import ConfigError, ProblemError
from featherfed.nearest import nearest
from featherfed.problem import Problem
from featherfed.problems import OURS
from featherfed.user_code import reason, where

GROUP = "featherfed.problems"
"""The entry points by which a package offers problems: a `Problem`, or a function from a model's name to one."""
MAX_NAME = 64
"""Characters of a problem's name on the wire."""


@lru_cache(maxsize=8)
def load_problem(name: str) -> Problem:
    """Return the problem of a name; raises `ConfigError` where there is none, `ProblemError` for a fault in its file.

    The current folder can be imported from for `module:attribute`, and a file's own folder for `file.py:attribute`.
    """
    return _user_problem(name) if ":" in name else installed_problem(name)


def installed_problem(name: str) -> Problem:
    """Return one of ours, or of an installed package: whatever the name is, no other code is imported."""
    family, _, model = name.partition("/")
    target = OURS.get(family) or _entry_points().get(family)
    if target is None:
        known = [*OURS, *_entry_points()]
        raise ConfigError(
            f"unknown problem {name!r}{nearest(family, known)}; a file of your own is named like mytask:problem or"
            " ./mytask.py:problem"
        )
    module, _, attribute = target.partition(":")
    with _importing(name):
        found = getattr(importlib.import_module(module), attribute)
    made = found(model) if callable(found) and not isinstance(found, Problem) else found
    if isinstance(found, Problem) and model:
        raise ConfigError(f"problem {family!r} has one model, and {name!r} asks for another")
    return _named(made, name, name)


def is_installed(name: str) -> bool:
    """Whether a name that came over the wire is one of ours or of an installed package."""
    family = name.partition("/")[0]
    return ":" not in name and (family in OURS or family in _entry_points())


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}


def _user_problem(name: str) -> Problem:
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise ConfigError(f"--problem {name!r} is not MODULE:ATTRIBUTE, like mytask:problem or ./mytask.py:problem")
    with _importing(name):
        if source.endswith(".py") or "/" in source:
            module = _import_file(Path(source), name)
        else:
            with _here():
                module = importlib.import_module(source)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            offered = [key for key, value in vars(module).items() if isinstance(value, Problem)]
            raise ConfigError(
                f"--problem {name}: {module.__file__} has no {attribute!r}"
                f"{nearest(attribute, offered) if offered else ', and no ff.Problem at all'}"
            )
        found = getattr(found, part)
    if callable(found) and not isinstance(found, Problem):
        raise ConfigError(f"--problem {name}: {attribute!r} in {module.__file__} is a function, and no ff.Problem")
    return _named(found, name, f"{Path(source).stem}:{attribute}" if source.endswith(".py") else name)


def _named(found: object, name: str, called: str) -> Problem:
    if not isinstance(found, Problem):
        raise ConfigError(f"--problem {name} is a {type(found).__name__}, and no ff.Problem")
    return found if found.name else replace(found, name=called[-MAX_NAME:])


@contextmanager
def _importing(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        # What `ff.Problem` itself refuses, with the line that made it.
        if place := where(error):
            raise ProblemError(f"--problem {name} ({place}): {error}") from error
        raise
    except ModuleNotFoundError as error:
        source = name.rpartition(":")[0] or name
        if error.name and (source == error.name or source.startswith(f"{error.name}.")):
            raise ConfigError(
                f"--problem {name}: there is no module {error.name!r} in {Path.cwd()} or among the installed ones; a"
                " file is named by its path, like ./mytask.py:problem"
            ) from error
        raise _fault(name, error) from error
    except Exception as error:
        raise _fault(name, error) from error


def _fault(name: str, error: Exception) -> ProblemError:
    place = where(error)
    return ProblemError(f"--problem {name} cannot be imported{f' ({place})' if place else ''}: {reason(error)}")


def _import_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"--problem {name}: there is no file {path}")
    resolved = path.resolve()
    known = sys.modules.get(resolved.stem)
    if known is not None and getattr(known, "__file__", None) == str(resolved):
        return known
    # A stem that is something else's already must not take its place.
    called = resolved.stem if known is None and importlib.util.find_spec(resolved.stem) is None else f"_{resolved.stem}"
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
