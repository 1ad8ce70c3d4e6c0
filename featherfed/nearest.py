"""The nearest known name, for sentences about unknown ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `known`, or the list of them if none is near."""
    names = sorted(known)
    found = get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(names)}"
