"""What a gateway tells whoever started it, from its own process."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console

from featherfed.commandline.streams import open_log
from featherfed.errors import ConfigError, FeatherfedError, LocalError
from featherfed.server.watchers.display import PlainDisplay
from featherfed.server.watchers.watcher import Visitor, Watcher, Watchers


def log_file(folder: Path) -> Path:
    """Return where a gateway's own lines are: beside its folder."""
    return folder.with_name(f"{folder.name}.log")


@dataclass(frozen=True, slots=True)
class Listening:
    """Phones may come to this address; `process` is the gateway's."""

    address: str
    process: int


@dataclass(frozen=True, slots=True)
class Gathered:
    """All phones are there, this many."""

    phones: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The gateway is done, by the root's word."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The gateway cannot go on; `usage` says that it was started wrongly."""

    sentence: str
    usage: bool

    def error(self, index: int) -> FeatherfedError:
        """Return what to raise."""
        return (ConfigError if self.usage else LocalError)(f"gateway {index}: {self.sentence}")


Report = Listening | Gathered | Ended | Failed


class GatewayDiedError(Exception):
    """The process of a gateway is gone, and did not say why."""


class Reporter(Watcher):
    """Reports where the gateway listens, and when all of its phones are there."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        self._report = report

    def listening(self, address: str, run: str) -> None:
        """Report it."""
        self._report(Listening(address, os.getpid()))

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Report the last one."""
        if connected == expected:
            self._report(Gathered(connected))


class Log:
    """The gateway's own lines; a later life goes on with the file."""

    def __init__(self, folder: Path, report: Callable[[Report], None]) -> None:
        self._path, self._report = log_file(folder), report

    def __enter__(self) -> Watchers:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A full disk costs its words, and not the gateway.
        self._file = open_log(self._path, append=True)
        return Watchers([PlainDisplay(Console(file=self._file, width=120), None), Reporter(self._report)])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
