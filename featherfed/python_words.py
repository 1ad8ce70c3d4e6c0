"""Errors of a run's settings in the words of whoever said them in Python: `phones=0`, and not `--phones 0`."""

import contextlib
import re
from collections.abc import Iterator

from featherfed.errors import ConfigError

_VALUE = r"-?[0-9][0-9.e+-]*|-?inf|nan|True|False|'[^']*'"
_WORD = "sync|async|always|when-chosen|all"
_FLAG = re.compile(rf"(?<![\w-])--([a-z][a-z-]*)(?: (?:({_VALUE})|({_WORD})))?(?![\w-])")
_COMMAND = re.compile(r"\bfl-[a-z]+ ")


@contextlib.contextmanager
def in_python_words() -> Iterator[None]:
    """Say a `ConfigError` that is raised within in keywords; also a decorator."""
    try:
        yield
    except ConfigError as error:
        error.args = (as_keywords(str(error)),)
        raise


def as_keywords(sentence: str) -> str:
    """Return a sentence with keywords in place of flags, up to a command that it may end with.

    >>> as_keywords("--phones 0 is below 1")
    'phones=0 is below 1'
    >>> as_keywords("--quorum 3 is for --mode sync; with --mode async say --buffer")
    "quorum=3 is for mode='sync'; with mode='async' say buffer"
    >>> as_keywords("--set shift=30 exceeds 27")
    'settings shift=30 exceeds 27'
    >>> as_keywords("--host 0.0.0.0 lets anybody in: fl-server token add NAME --tokens FILE")
    'host=0.0.0.0 lets anybody in: fl-server token add NAME --tokens FILE'
    """
    command = _COMMAND.search(sentence)
    end = command.start() if command else len(sentence)
    return _FLAG.sub(_keyword, sentence[:end]) + sentence[end:]


def _keyword(match: re.Match[str]) -> str:
    name, value, word = match.groups()
    name = {"set": "settings", "server-optimizer": "server", "server-lr": "server.lr"}.get(name, name).replace("-", "_")
    return f"{name}={value}" if value is not None else f"{name}={word!r}" if word is not None else name
