"""`runs/<name>/`: what is where, and writes that are whole or not there."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from safetensors import SafetensorError

from featherfed.errors import ConfigError, LocalError
from featherfed.server.config import RunConfig, read_config
from featherfed.server.storage.database import Remote, read_remote, remote_for

LONGEST_NAME = 240
"""Bytes of a run's name: file systems take 255, and some programs put an ending behind it."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run. Not `durable`: what a crash of the machine may cost is nothing to this run."""

    path: Path
    durable: bool = True

    @property
    def database(self) -> Path | Remote:
        """Rounds, updates, traffic, faults."""
        return read_remote(self.store) or self.path / "run.sqlite"

    @property
    def store(self) -> Path:
        """Where the database is, if it is not here."""
        return self.path / "store.toml"

    @property
    def model(self) -> Path:
        """The current model with the server's state."""
        return self.path / "model.safetensors"

    @property
    def best(self) -> Path:
        """The model that is best by the problem's first metric, or its loss."""
        return self.path / "best.safetensors"

    @property
    def config(self) -> Path:
        """The configuration as run."""
        return self.path / "config.toml"

    def version(self, number: int) -> Path:
        """The model of a version, until the database says that a newer one counts."""
        return self.path / f"model-{number}.safetensors"

    def write_version(self, number: int, save: Callable[[Path], None]) -> None:
        """Have a version written before the database points to it; raises `LocalError` when the disk fails."""
        path = self.version(number)
        try:
            if self.durable:
                save_durably(path, save)
            else:
                save(path)
        except (OSError, SafetensorError) as error:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise LocalError(f"cannot write the model {path}: {cause}") from error

    def promote(self, number: int) -> None:
        """Make a version the current model; earlier versions go, and it stays until a later one is promoted."""
        self._name(number, self.model)
        try:
            self.drop_versions(number)
        except OSError as error:
            raise LocalError(f"cannot remove versions before {self.version(number)}: {error.strerror}") from error

    def keep_best(self, number: int) -> None:
        """Make the version that was promoted last the best model."""
        self._name(number, self.best)

    def _name(self, number: int, target: Path) -> None:
        link = target.with_suffix(".new")
        try:
            link.unlink(missing_ok=True)
            os.link(self.version(number), link)
            os.replace(link, target)
            # Two names of one file are left alone by a rename, as where a resumed run names its model anew.
            link.unlink(missing_ok=True)
        except OSError as error:
            raise LocalError(f"cannot name the model {self.version(number)}: {error.strerror}") from error

    def drop_versions(self, but: int | None = None) -> None:
        """Remove all versions but one: a server was killed that had written them and not told the database."""
        for old in self.path.glob("model-*.safetensors*"):
            if but is None or old != self.version(but):
                old.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there whole, or not at all."""

    def write(new: Path) -> None:
        new.write_bytes(data)

    save_durably(path, write)


def save_durably(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` write a file so that after a crash it is there whole, or not at all."""
    new = path.with_name(path.name + ".new")
    save(new)
    with open(new, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def create(runs: Path, name: str | None, config: RunConfig, *, store: str | None = None) -> RunFolder:
    """Make the folder of a new run; one that exists is never touched. `store` is the URL of a PostgreSQL database."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{config.title}" if name is None else name
    if Path(name).name != name or name in ("", ".."):
        raise ConfigError(f"--name {name!r} is not the name of a folder; a path goes to --runs")
    if not name.isprintable():
        raise ConfigError(f"--name {name!r} has letters that cannot be printed, which no terminal could show again")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise ConfigError(
            f"--name {name[:20]}… has {len(os.fsencode(name))} bytes, and a folder's name {LONGEST_NAME} at the most"
        )
    folder = RunFolder(runs / name)
    # A link that leads nowhere is there too.
    if os.path.lexists(folder.path):
        raise ConfigError(
            f"the run folder {folder.path} exists; go on with --resume {folder.path}, or choose another --name"
        )
    remote = None if store is None else remote_for(store, folder.path.name)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir()
        if remote is not None:
            write_durably(folder.store, remote.to_toml().encode())
        write_durably(folder.config, config.to_toml().encode())
    except OSError as error:
        raise ConfigError(
            f"cannot make the run folder {folder.path}: {error.strerror}; choose another folder (--runs)"
        ) from error
    return folder


def existing(path: Path) -> tuple[RunFolder, RunConfig]:
    """Return an existing run's folder and configuration."""
    folder = RunFolder(path)
    database = folder.database
    try:
        is_run = folder.config.exists() and not (isinstance(database, Path) and not database.exists())
    except OSError as error:
        raise ConfigError(f"cannot look into {path}: {error.strerror}") from error
    if not is_run:
        raise ConfigError(f"{path} is not a run folder: it has no config.toml and run.sqlite")
    return folder, read_config(folder.config)
