"""The link's flags, one set for every command that runs over a link."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.profile import Profile, profile_from_flags, read_profiles

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
FILE = "profiles_file"
NAMES = tuple(name for name in inspect.signature(profile_from_flags).parameters if name != "own")


def link_flags(command: Command) -> Callable[..., Any]:
    """Add the link's flags to a click command, which gets them as `profile: Profile | None`.

    None means no flag was given: an unlimited link. Bad input is a usage error in one sentence (exit code 2).
    """
    return _with_flags(command, ())


def links_flags(command: Command) -> Callable[..., Any]:
    """Add the flags of many phones' links to a click command, which gets `profiles: list[Profile | None]` too.

    They are those of `--links`, in their order, each with what the other flags say over it; empty without `--links`.
    """
    dealt = click.option("--links", metavar="NAME,…", help="Links by name or rate, dealt to the phones in turn.")
    return _with_flags(command, (dealt,))


def _with_flags(command: Command, more: Sequence[Callable[[Any], Any]]) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_profile(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in NAMES}
        file, links = kwargs.pop(FILE), kwargs.pop("links", None)
        try:
            if links is not None and flags["link"] is not None:
                raise LinkConfigError("--links names a link for each phone, and --link one for all: leave out one")
            if file is not None and links is None and flags["link"] is None:
                raise LinkConfigError(f"--profiles {file} names links, and none of them is chosen: add --link NAME")
            own = read_profiles(file) if file is not None else {}
            if links is not None:
                names = [name.strip() for name in links.split(",")]
                kwargs["profiles"] = [profile_from_flags(**{**flags, "link": name}, own=own) for name in names]
            elif more:
                kwargs["profiles"] = []
            profile: Profile | None = profile_from_flags(**flags, own=own)
        except LinkConfigError as error:
            raise click.UsageError(str(error)) from error
        return command(*args, profile=profile, **kwargs)

    decorated: Callable[..., Any] = with_profile
    for option in reversed((*more, *_OPTIONS)):
        decorated = option(decorated)
    return decorated
