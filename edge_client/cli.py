"""`fl-edge`: one phone, or a swarm of them. Nothing heavy is imported before a command runs."""

import os

import click

from bandwidth_sim.flags import link_flags
from bandwidth_sim.profile import Profile
from bandwidth_sim.units import parse_duration
from edge_client.device import parse_device

# A phone is one of many on this machine: more threads than cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class Shard(click.ParamType):
    """`auto`, or `7/100`: the eighth of a hundred shards, counted from 0."""

    name = "auto|INDEX/OF"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | None:
        """Return (index, of), or None for auto."""
        text = str(value)
        if text == "auto":
            return None
        index, slash, count = text.partition("/")
        if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
            self.fail(f"{text!r} is not auto or INDEX/OF with INDEX from 0 to OF - 1, like 7/100", param, ctx)
        return int(index), int(count)


@click.group()
@click.version_option(package_name="featherfed")
def main() -> None:
    """Play phones that train on their own shard and upload compressed updates."""


@main.command()
@click.option("--server", default="ws://127.0.0.1:8765", show_default=True, help="Address of fl-server.")
@click.option("--name", help="This phone's id.  [default: random, kept in the state directory]")
@click.option(
    "--shard", type=Shard(), default="auto", show_default=True, help="Which shard of the data is this phone's."
)
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--state-dir", type=click.Path(), help="Folder where updates and downloads survive a restart.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="cpu or cuda, or a phone's speed: slow, mid, fast or 20ms a step.",
)
@click.option("--train", type=click.Choice(["sgd", "none"]), default="sgd", show_default=True,
              help="none sends seeded noise: everything but the training.")  # fmt: skip
@click.option("--token", envvar="FL_TOKEN", help="Token that the server's operator gave out.  [env: FL_TOKEN]")
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False), help="Certificate that signs the server's, for wss://."
)
@click.option("--patience", default="10min", show_default=True, help="How long to look for a server that went away.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@link_flags
def run(
    server: str,
    name: str | None,
    shard: tuple[int, int] | None,
    data_dir: str | None,
    state_dir: str | None,
    device: str,
    train: str,
    token: str | None,
    ca: str | None,
    patience: str,
    quiet: bool,
    profile: Profile | None,
) -> None:
    """Run one phone until the server ends it."""
    from bandwidth_sim.errors import LinkConfigError
    from edge_client.one_phone import PhoneOptions, play
    from featherfed.errors import ConfigError, FeatherfedError

    try:
        compute, step_s = parse_device(device)
        options = PhoneOptions(
            server=server,
            name=name,
            shard=shard,
            data_dir=data_dir,
            state_dir=state_dir,
            compute=compute,
            step_s=step_s,
            train=train == "sgd",
            token=token,
            ca=ca,
            patience_s=parse_duration(patience),
            profile=profile,
        )
        options.check()
    except (ConfigError, LinkConfigError) as error:
        raise click.UsageError(str(error)) from error
    say = (lambda line: None) if quiet else click.echo
    try:
        say(play(options, say))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
