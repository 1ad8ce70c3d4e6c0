"""`fl-edge`: one phone, or a swarm of them. Nothing heavy is imported before a command runs."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featherfed.bandwidth_sim.flags import link_flags, links_flags
from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.units import parse_duration
from featherfed.commandline.program import Program
from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on
from featherfed.edge_client.device import parse_device

if TYPE_CHECKING:
    from featherfed.edge_client.one_phone import PhoneOptions

# A phone is one of many on this machine: more threads than cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Every Python that this one starts would look for modules in the current folder first: a file server.py there, or an
# empty json.py, would be imported in place of ours or the library's.
os.environ.setdefault("PYTHONSAFEPATH", "1")

_PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class Shard(click.ParamType[tuple[int, int] | None]):
    """`auto`, or `7/100`: the eighth of a hundred shards, counted from 0."""

    name = "auto|INDEX/OF"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | None:
        """Return (index, of), or None for auto."""
        text = str(value)
        if text == "auto":
            return None
        match = _PLACE.fullmatch(text)
        if match is None or int(match[1]) >= int(match[2]):
            self.fail(f"{text[:40]!r} is not auto or INDEX/OF with INDEX from 0 to OF - 1, like 7/100", param, ctx)
        return int(match[1]), int(match[2])


@click.group(cls=Program)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Play phones that train on their own shard and upload compressed updates."""


def _phone_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `run` and `swarm` have in common."""
    options = (
        click.option("--server", "servers", default=["ws://127.0.0.1:8765"], show_default=True, multiple=True,
                     help="Address of fl-server; more than one where a run has gateways: the phone looks for its own."),
        click.option("--problem", metavar="NAME",
                     help="This phone's own model and data, like mytask:problem or ./mytask.py:problem."
                          "  [default: the server's, where that is installed here]"),
        click.option("--plugin", "plugins", multiple=True, metavar="MODULE",
                     help="Module or file of your own with codec stages, like mytask or ./mytask.py."),
        click.option("--data-dir", type=click.Path(),
                     help="Folder with data sets, like MNIST.  [default: FL_DATA_DIR, else a cache]"),
        click.option("--state-dir", type=click.Path(), help="Folder where updates and downloads survive a restart."),
        click.option("--device", default="cpu", show_default=True,
                     help="cpu or cuda, or a phone's speed: slow, mid, fast, or seconds a training step (0.02, 20ms)."),
        click.option("--train", type=click.Choice(["sgd", "none"]), default="sgd", show_default=True,
                     help="none sends seeded noise: everything but the training."),
        click.option("--secure", "only_masked", is_flag=True,
                     help="Take part only in a run that sums updates under masks (docs/PRIVACY.md)."),
        click.option("--least-circle", default=5, show_default=True, metavar="PHONES",
                     help="Mask no update among fewer phones."),
        click.option("--least-noise", default=0.0, show_default=True, metavar="TIMES",
                     help="Take part only in a run whose phones add noise of so many times what one of them moves a sum"
                          " by (docs/DIFFERENTIAL_PRIVACY.md)."),
        click.option("--dropout", default=0.0, show_default=True, metavar="SHARE",
                     help="Leave in place of training with this probability, in each round."),
        click.option("--away", default="60s", show_default=True, metavar="TIME",
                     help="Mean time until a phone that left is back."),
        click.option("--token", envvar="FL_TOKEN", help="Token that the server's operator gave out.  [env: FL_TOKEN]"),
        click.option("--insecure", is_flag=True, help="Send the token over ws:// to another machine."),
        click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Certificate authority, for wss://."),
        click.option("--patience", default="10min", show_default=True, help="How long to look for a server that left."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _options(
    servers: tuple[str, ...], profile: Profile | None, device: str, train: str, patience: str, away: str, **rest: Any
) -> "PhoneOptions":
    """Return the checked options; raises a usage error in one sentence."""
    with loading():
        from featherfed.bandwidth_sim.errors import LinkConfigError
        from featherfed.edge_client.one_phone import PhoneOptions
        from featherfed.errors import ConfigError

    try:
        compute, step_s = parse_device(device)
        patience_s, away_s = parse_duration(patience), parse_duration(away)
        options = PhoneOptions(
            compute=compute, step_s=step_s, train=train == "sgd", patience_s=patience_s, away_s=away_s,
            profile=profile, server=servers[0], others=servers[1:], **rest,
        )  # fmt: skip
        options.check()
    except (ConfigError, LinkConfigError) as error:
        raise click.UsageError(str(error)) from error
    return options


@main.command()
@_phone_flags
@click.option("--name", help="This phone's id.  [default: random, kept in the state directory]")
@click.option("--shard", type=Shard(), default="auto", show_default=True, help="Which shard of the data to play.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@link_flags
def run(quiet: bool, **flags: Any) -> None:
    """Run one phone until the server ends it."""
    keep_on()
    options = _options(**flags)
    from featherfed.edge_client.one_phone import play
    from featherfed.errors import ConfigError, FeatherfedError

    say = (lambda line: None) if quiet else click.echo
    try:
        say(play(options, say))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_phone_flags
@click.option("--count", type=click.IntRange(1), required=True, help="How many phones.")
@click.option("--name", default="swarm", show_default=True, help="The phones are NAME-0, NAME-1, ….")
@click.option("--workers", type=click.IntRange(1), help="Processes to spread them over.  [default: cores, 1 on a GPU]")
@click.option("--devices", metavar="NAME,…", help="As --device, dealt to the phones in turn.")
@click.option(
    "--shard",
    type=Shard(),
    default="auto",
    show_default=True,
    help="Shard of the first phone; the others play the next ones.",
)
@click.option(
    "--tokens",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a line NAME TOKEN for each phone.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
@links_flags
def swarm(
    count: int,
    workers: int | None,
    devices: str | None,
    tokens: Path | None,
    profiles: list[Profile],
    quiet: bool,
    **flags: Any,
) -> None:
    """Run many phones with one import of torch; each has its own link, token, shard and state."""
    if tokens is not None and flags["token"]:
        raise click.UsageError("--tokens gives each phone its own token; leave out --token")
    keep_on()
    options = _options(**flags)
    with loading():
        from featherfed.bandwidth_sim.errors import LinkConfigError
        from featherfed.edge_client.swarm import Deal, phone_options, run_swarm, workers_for
        from featherfed.errors import ConfigError

    try:
        speeds = [parse_device(device.strip()) for device in devices.split(",")] if devices is not None else []
        deal = Deal(profiles=profiles, devices=speeds, tokens=tokens)
        phones = phone_options(options, count, deal)
        for phone in phones:
            phone.check()
    except (ConfigError, LinkConfigError) as error:
        raise click.UsageError(str(error)) from error
    try:
        ended_well = run_swarm(phones, min(workers or workers_for(phones), count), quiet=quiet)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if not ended_well:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
