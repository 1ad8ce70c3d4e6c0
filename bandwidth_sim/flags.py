"""The link's flags, one set for every command that runs over a link."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import profile_from_flags

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option("--bandwidth", metavar="UP[/DOWN]", help="Rate up, or up/down: 256kbps, 32KiB/s, 256kbps/1mbps."),
    click.option("--link", metavar="NAME", help="A named link; 'fl-link list' prints them."),
    click.option("--profiles", "profiles_file", type=_FILE, help="A TOML file with more named links."),
    click.option("--latency", metavar="TIME", help="One-way delay: 80ms."),
    click.option("--jitter", metavar="TIME", help="Half-width of a uniform deviation from the delay: 20ms."),
    click.option("--loss", metavar="PERCENT", help="Packets that TCP must send again: 1%."),
    click.option("--queue", metavar="TIME", help="What the link holds before the sender waits.  [default: 400ms]"),
    click.option("--mean-up", metavar="TIME", help="Mean time between random outages: 60s (with --mean-down)."),
    click.option("--mean-down", metavar="TIME", help="Mean length of a random outage: 5s (with --mean-up)."),
    click.option("--schedule", metavar="TEXT", help="Written outages that repeat: 'up 30s, down 5s'."),
    click.option("--drop-every", metavar="SIZE|TIME", help="End a connection after so much: 20kB or 30s."),
    click.option("--drop-how", metavar="HOW", help="How a drop ends it: reset, close or stall.  [default: reset]"),
    click.option("--trace-up", type=_FILE, help="A mahimahi trace in place of the rate up."),
    click.option("--trace-down", type=_FILE, help="A mahimahi trace in place of the rate down."),
)
NAMES = tuple(inspect.signature(profile_from_flags).parameters)


def link_flags(command: Command) -> Callable[..., Any]:
    """Add the link's flags to a click command, which gets them as `profile: Profile | None`.

    None means no flag was given: an unlimited link. Bad input is a usage error in one sentence (exit code 2).
    """

    @functools.wraps(command)
    def with_profile(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in NAMES}
        try:
            profile = profile_from_flags(**flags)
        except LinkConfigError as error:
            raise click.UsageError(str(error)) from error
        return command(*args, profile=profile, **kwargs)

    decorated: Callable[..., Any] = with_profile
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
