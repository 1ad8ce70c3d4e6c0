"""What a problem that is here already is called: where its file has it, so that others can load their own copy."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from featherfed.errors import ConfigError
from featherfed.problem import Problem
from featherfed.problem_loading import MAX_NAME, is_installed, load_problem


@dataclass(frozen=True, slots=True)
class NamedProblem:
    """A problem and its name.

    `elsewhere` is the name by which another process of this machine loads it, or None; then `missing` says why, as the
    end of a sentence.
    """

    problem: Problem
    name: str
    elsewhere: str | None
    missing: str = ""


def named(given: "Problem | str") -> NamedProblem:
    """Return the problem of a name, or a problem with the name that it has where it was made.

    Raises `ConfigError` for what is neither, and for a name that nothing can be loaded by.
    """
    if isinstance(given, str):
        return NamedProblem(load_problem(given), given, given)
    if not isinstance(given, Problem):
        raise ConfigError(
            f"problem = {given!r} is a {type(given).__name__}, and neither an ff.Problem nor the name of one, like"
            " 'mnist/2nn' or 'mytask:problem'"
        )
    if given.name and is_installed(given.name) and load_problem(given.name) == given:
        return NamedProblem(given, given.name, given.name)
    found = next(_homes(given), None)
    if found is None:
        name = given.name or "own"
        missing = "which no module has as an attribute"
    else:
        module, attribute = found
        file = getattr(sys.modules[module], "__file__", None)
        if file is not None and file.startswith("<"):
            file = None  # a program that came by standard input is called <stdin>
        name = f"{module}:{attribute}"
        if module != "__main__":
            return NamedProblem(_called(given, name), name, name)
        # A script is no module that others could import by this name; its file can be loaded, by another program.
        name = f"{_short(file)}:{attribute}" if file else f"notebook:{attribute}"
        missing = (
            f"which is defined in {_short(file) if file else 'a notebook or at a prompt'}, as the program that runs"
        )
    return NamedProblem(_called(given, name), name, None, missing)


def _called(problem: Problem, name: str) -> Problem:
    return problem if problem.name else replace(problem, name=Path(name).name.replace(".py:", ":")[-MAX_NAME:])


def _homes(problem: Problem) -> Iterator[tuple[str, str]]:
    """Yield the modules and attributes that hold a problem, or one that `load_problem` has named."""
    for module, content in list(sys.modules.items()):
        for attribute, value in list(getattr(content, "__dict__", {}).items()):
            # Not isinstance, which asks some modules' own objects for their class, and they warn.
            if type(value) is Problem and (value is problem or replace(value, name=problem.name) == problem):
                yield module, attribute


def _short(file: str) -> str:
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else f".{os.sep}{relative}"
