"""Where a run's tables are: `run.sqlite` in its folder, or a schema of its own in a PostgreSQL database.

The folder of a run in PostgreSQL has `store.toml` in place of `run.sqlite`. A password never lands there: PostgreSQL's
client library reads it from PGPASSWORD or ~/.pgpass.
"""

import contextlib
import os
import secrets
import sqlite3
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
import tomlkit

from featherfed.errors import ConfigError

FORM = "postgresql+psycopg://USER@HOST/DATABASE"
MOST_LETTERS = 48
"""Of a run's name in its schema's: PostgreSQL cuts names at 63 bytes."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A schema of a PostgreSQL database."""

    url: str
    schema: str

    def __str__(self) -> str:
        return f"{self.url}, schema {self.schema}"

    def to_toml(self) -> str:
        """Return the text of `store.toml`."""
        return tomlkit.dumps(asdict(self))

    @property
    def options(self) -> str:
        """What PostgreSQL is told when a connection starts."""
        return f"-csearch_path={self.schema}"


def sqlite_url(path: Path) -> sa.URL:
    """Return the address of a file, whatever letters are in its path: in a text, `?` and `%` would end or change it."""
    return sa.URL.create("sqlite", database=str(path))


def is_read_only(path: Path) -> bool:
    """Whether this process may read a database and change nothing: somebody else's run, or a disk that is read-only.

    One that a server left in the middle has a log beside it, which SQLite has to fold in before anybody reads.
    """
    if not path.exists() or path.with_name(f"{path.name}-wal").exists():
        return False
    return not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def copied(path: Path) -> sqlite3.Connection:
    """Return a copy in memory of a file that nobody changes meanwhile: SQLite makes no lock and no log beside it."""
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as file:
        file.backup(copy)
    return copy


def remote_for(url: str, run: str) -> Remote:
    """Return a new place for the run of that name; raises `ConfigError` where the URL is not one that can be used."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(f"--store {url!r} is not a URL like {FORM}") from error
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigError(f"--store {parsed.drivername}://… is not {FORM}; without --store a run keeps run.sqlite")
    if parsed.password is not None:
        raise ConfigError("--store has a password, which would land in the run's folder; use PGPASSWORD or ~/.pgpass")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ConfigError("--store needs psycopg: pip install 'featherfed[postgresql]'") from error
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in run.lower())
    # Another run may have had this name, in another folder.
    schema = f"run_{letters[:MOST_LETTERS]}_{secrets.token_hex(4)}"
    return Remote(str(parsed.set(drivername="postgresql+psycopg")), schema)


def read_remote(path: Path) -> Remote | None:
    """Return what a `store.toml` says, or None where there is none."""
    try:
        return Remote(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot read where the run's store is, {path}: {error}") from error
