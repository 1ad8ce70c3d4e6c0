"""What `fl-server serve` and `fl-server tree` have in common: the flags of a run's folder, and how a run ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

OPTIONS = (
    click.option("--runs", default="runs", show_default=True, type=click.Path(path_type=Path),
                 help="Folder of all runs."),
    click.option("--name", help="Name of this run's folder.  [default: time and model]"),
    click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with a run where it stopped."),
    click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]"),
    click.option("--store", metavar="URL",
                 help="PostgreSQL to keep the run in: postgresql+psycopg://USER@HOST/DATABASE."),
    click.option("--durable/--no-durable", default=True, show_default=True,
                 help="Acknowledge only what is on the disk."),
)  # fmt: skip


def serve_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def check_resume(resume: Path | None, given: dict[str, Any], *, name: str | None, store: str | None) -> None:
    """Raise a usage error where a run that goes on is given what it has already."""
    if resume is not None and (given or name or store):
        flags = ", ".join(
            "--" + key.replace("_", "-") for key in [*given, *(["name"] if name else []), *(["store"] if store else [])]
        )
        raise click.UsageError(f"--resume takes the run's own configuration; leave out {flags}")


def ended(serve: Callable[[], str | None]) -> None:
    """Serve a run; say in one sentence why it could not be, and exit 1 where it pauses by itself."""
    from featherfed.errors import ConfigError, FeatherfedError
    from featherfed.server.round_machine import STOPPED

    try:
        paused = serve()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if paused is not None:
        raise SystemExit(0 if paused == STOPPED else 1)
