"""A problem by its name: `module:attribute`, `path/file.py:attribute`, or one that is installed, like `mnist/2nn`."""

import importlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from featherfed.errors import ConfigError
from featherfed.nearest import nearest
from featherfed.problem import Problem
from featherfed.problems import OURS
from featherfed.user_modules import import_source, importing

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
        if name.endswith(".py"):
            raise ConfigError(f"--problem {name} does not say which ff.Problem of the file: {name}:problem does")
        known = [*OURS, *_entry_points()]
        raise ConfigError(
            f"unknown problem {name!r}{nearest(family, known)}; a file of your own is named like mytask:problem or"
            " ./mytask.py:problem"
        )
    module, _, attribute = target.partition(":")
    with importing(f"--problem {name}", name.rpartition(":")[0] or name):
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
    module = import_source(source, f"--problem {name}")
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
        kind = "class" if isinstance(found, type) else "function"
        raise ConfigError(f"--problem {name}: {attribute!r} in {module.__file__} is a {kind}, and no ff.Problem")
    if not isinstance(found, Problem):
        raise ConfigError(
            f"--problem {name}: {attribute!r} in {module.__file__} is of type {type(found).__name__}, and no ff.Problem"
        )
    return _named(found, name, f"{Path(source).stem}:{attribute}" if source.endswith(".py") else name)


def _named(found: object, name: str, called: str) -> Problem:
    if not isinstance(found, Problem):
        raise ConfigError(f"--problem {name} is a {type(found).__name__}, and no ff.Problem")
    return found if found.name else replace(found, name=called[-MAX_NAME:])
