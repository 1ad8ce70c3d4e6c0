"""Tokens: one for each phone that may come in, stored hashed, in a file beside the runs.

A token is `KEY.SECRET`: the key says which line of the file to look at, the secret has 256 random bits. The file
has only the secret's SHA-256: no slow password hash is needed where nothing can be guessed. It is compared in constant
time, and an unknown key is compared with something too. A token belongs to a name, and opens for a phone of that name
alone; a name that ends in * stands for all phones whose names begin so (a swarm's).

The file may change while servers run: it is replaced whole, and read again when it has changed.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from featherfed.errors import ConfigError, RefusedError

FILE = "tokens.json"
NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Token:
    """What the file knows of a token; `sha256` is the secret's, in hex."""

    name: str
    key: str
    sha256: str
    added: str

    def check_name(self, name: str) -> None:
        """Raise `RefusedError` unless a phone may claim `name` with this token."""
        if name != self.name and not (self.name.endswith("*") and name.startswith(self.name[:-1])):
            raise RefusedError(f"this token belongs to phone {self.name!r}, not to {name!r}; start fl-edge with --name")


def add(path: Path, name: str) -> str:
    """Give a phone a token and return it; it is written down nowhere else. Raises `ConfigError` if it has one."""
    if not (0 < len(name) <= 64 and name.isprintable()):
        raise ConfigError(f"name {name!r} is not 1 to 64 printable characters")
    with _changing(path) as tokens:
        if any(token.name == name for token in tokens.values()):
            raise ConfigError(f"phone {name!r} has a token in {path}; fl-server token revoke takes it back")
        token, text = make(name)
        while token.key in tokens:
            token, text = make(name)
        tokens[token.key] = token
    return text


def make(name: str) -> tuple[Token, str]:
    """Return a new token for a name: what a server keeps of it, and what its owner gets."""
    key, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    return Token(name, key, _hash(secret), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"), f"{key}.{secret}"


def revoke(path: Path, name: str) -> None:
    """Take a phone's token back; raises `ConfigError` if it has none."""
    with _changing(path) as tokens:
        keys = [key for key, token in tokens.items() if token.name == name]
        if not keys:
            raise ConfigError(f"phone {name!r} has no token in {path}; fl-server token list shows who has")
        for key in keys:
            del tokens[key]


def read(path: Path) -> dict[str, Token]:
    """Return the tokens by their keys; raises `ConfigError` if the file cannot be read."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {row["key"]: Token(**row) for row in rows}
    except OSError as error:
        raise ConfigError(f"cannot read the tokens {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"cannot read the tokens {path}: {error}") from error


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, Token]]:
    """Give the tokens to change, and write them back; one command at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(path.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = read(path) if path.exists() else {}
            yield tokens
            new = path.with_name(path.name + ".new")
            # Nobody else reads it, although nothing in it opens a door.
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump([asdict(token) for token in tokens.values()], file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
    except OSError as error:
        raise ConfigError(f"cannot write the tokens {path}: {error.strerror}") from error


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


class Tokens:
    """The tokens of a file, as they are now. A file that goes or breaks while it is used opens to nobody."""

    def __init__(self, path: Path, lent: Sequence[Token] = ()) -> None:
        """Read the file; raises `ConfigError` if that cannot be done. `lent` open too, and are in no file."""
        self._path = path
        self._lent = {token.key: token for token in lent}
        self._seen = self._look()
        self._tokens = read(path) | self._lent

    def find(self, authorization: str | None) -> Token | None:
        """Return the token that an `Authorization` header presents, or None if it presents no valid one."""
        self.refresh()
        scheme, _, text = (authorization or "").partition(" ")
        key, _, secret = text.strip().partition(".")
        token = self._tokens.get(key)
        known = hmac.compare_digest(token.sha256 if token else NOBODY, _hash(secret))
        return token if known and scheme.lower() == "bearer" else None

    def valid(self, token: Token) -> bool:
        """Return whether a token that was found before still opens."""
        self.refresh()
        return self._tokens.get(token.key) == token

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._tokens = read(self._path) | self._lent
        except ConfigError:
            self._tokens = dict(self._lent)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size
