"""Keywords that a function does not take: one sentence that offers the nearest one."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import ParamSpec, TypeVar

from featherfed.errors import ConfigError
from featherfed.nearest import nearest

P = ParamSpec("P")
R = TypeVar("R")


def only_known(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function refuse unknown keywords by `ConfigError`, naming the nearest known one.

    >>> @only_known
    ... def train(*, rounds=1): ...
    >>> train(round=2)
    Traceback (most recent call last):
        ...
    featherfed.errors.ConfigError: train() has no keyword 'round'; did you mean 'rounds'?
    """
    known = [name for name, each in inspect.signature(function).parameters.items() if name != "self"]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_unknown(f"{function.__name__}()", kwargs, known)
        return function(*args, **kwargs)

    return checked


def refuse_unknown(
    whose: str, given: Iterable[str], known: Collection[str], elsewhere: Mapping[str, str] | None = None
) -> None:
    """Raise `ConfigError` for the first given name that is not known; `elsewhere` says who takes some of the others."""
    for name in given:
        if elsewhere and name in elsewhere:
            raise ConfigError(f"{whose} has no keyword {name!r}; {elsewhere[name]} takes it")
        if name not in known:
            raise ConfigError(f"{whose} has no keyword {name!r}{nearest(name, known)}")
