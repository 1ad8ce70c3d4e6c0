"""What `fl-server serve` and `fl-server tree` have in common: the flags of a run's folder, and how a run ends."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from featherfed.server.serving import RunPlan

OPTIONS = (
    click.option("--runs", default="runs", show_default=True, type=click.Path(path_type=Path),
                 help="Folder of all runs."),
    click.option("--name", help="Name of this run's folder.  [default: time and model]"),
    click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with a run where it stopped."),
    click.option("--data-dir", type=click.Path(),
                 help="Folder with data sets, like MNIST.  [default: FL_DATA_DIR, else a cache]"),
    click.option("--store", metavar="URL",
                 help="PostgreSQL to keep the run in: postgresql+psycopg://USER@HOST/DATABASE."),
    click.option("--durable/--no-durable", default=True, show_default=True,
                 help="Acknowledge only what is on the disk."),
    click.option("--decode-threads", default=1, show_default=True, type=click.IntRange(1),
                 help="Threads that decode updates side by side, of large models; more gain with featherfed[fast]."),
)  # fmt: skip


def serve_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


WHERE = ("runs", "name", "resume", "data_dir", "store", "durable", "decode_threads", "entrance", "watching")
"""What a run's command is told beside the run's settings."""


def split(flags: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the run that were given, and all of `WHERE`.

    Raises a usage error where a run that goes on is given what it has already.
    """
    where = {key: flags[key] for key in WHERE}
    given = {key: value for key, value in flags.items() if key not in WHERE and value is not None}
    own = [*given, *(key for key in ("name", "store") if where[key])]
    if where["resume"] is not None and own:
        named = ", ".join("--" + key.replace("_", "-") for key in own)
        raise click.UsageError(f"--resume takes the run's own configuration; leave out {named}")
    return given, where


def planned(settings: Mapping[str, Any], *, entrance: Mapping[str, Any], **where: Any) -> "RunPlan":
    """Return the plan of the run that the flags tell of; raises `ConfigError`."""
    from featherfed.server.door.entrance import EntranceOptions
    from featherfed.server.serving import plan_of

    return plan_of(settings, entrance=EntranceOptions(**entrance), **where)


def ended(serve: Callable[[], str | None]) -> None:
    """Serve a run; say in one sentence why it could not be, and exit 1 where it pauses by itself."""
    from featherfed.errors import ConfigError, FeatherfedError
    from featherfed.server.rounds.round_machine import STOPPED

    try:
        paused = serve()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if paused is not None:
        raise SystemExit(0 if paused == STOPPED else 1)
