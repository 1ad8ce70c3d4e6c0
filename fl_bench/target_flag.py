"""`--target` of the commands that compare runs: up to which value of which metric bytes and time are counted."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from featherfed.errors import ConfigError
from featherfed.server.measures import Target

Command = TypeVar("Command", bound=Callable[..., Any])


def _parsed(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[Target, ...]:
    try:
        return tuple(Target.parse(text) for text in given)
    except ConfigError as error:
        raise click.UsageError(str(error), ctx=ctx) from error


def target_flag(command: Command) -> Command:
    """Add the flag to a command that takes `targets`."""
    return click.option(
        "--target", "targets", multiple=True, callback=_parsed, metavar="NAME=VALUE",
        help="Count up to this value of a metric, or of loss; may be repeated.  [default: the runs' own --target, and"
        " 0.9, 0.95, 0.97, 0.98 and 0.99 of a fraction like accuracy]",
    )(command)  # fmt: skip
