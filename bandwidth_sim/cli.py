"""`fl-link`: list, proxy, show and test emulated links."""

import asyncio
import contextlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import click

from featherfed.bandwidth_sim.control import Control, describe
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.flags import link_flags
from featherfed.bandwidth_sim.link import LinkSpec
from featherfed.bandwidth_sim.measure import measure
from featherfed.bandwidth_sim.profile import Profile, find_profile, known_profiles, read_profiles
from featherfed.bandwidth_sim.proxy import Proxy, parse_address
from featherfed.commandline.program import Program
from featherfed.commandline.signals import loading, stopping
from featherfed.commandline.streams import keep_on, open_log


@click.group(cls=Program)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Phone links on real sockets, without root."""


def rate_text(rate_bytes_per_s: float) -> str:
    """Return a rate as people write it, in bits a second.

    >>> rate_text(32_000)
    '256 kbit/s'
    """
    if not math.isfinite(rate_bytes_per_s):
        return "unlimited"
    return f"{rate_bytes_per_s * 8 / 1000:g} kbit/s"


def _row(profile: Profile) -> str:
    up, down = rate_text(profile.up.mean_wire_bytes_per_s), rate_text(profile.down.mean_wire_bytes_per_s)
    rtt = f"{profile.rtt_s * 1000:g} ms"
    return f"{profile.name:<18} {up:>14} {down:>14} {rtt:>8} {profile.up.loss:>6.1%}  {profile.source}"


_PROFILES = click.option(
    "--profiles",
    "profiles_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file with more named links.",
)


@main.command("list")
@_PROFILES
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_links(profiles_file: Path | None, as_json: bool) -> None:
    """Print the named links with their source."""
    try:
        profiles = known_profiles(read_profiles(profiles_file) if profiles_file else {})
    except LinkConfigError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(profile) for profile in profiles.values()]))
        return
    click.echo(f"{'name':<18} {'up':>14} {'down':>14} {'rtt':>8} {'loss':>6}  source")
    for profile in profiles.values():
        click.echo(_row(profile))


@main.command()
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where programs connect; port 0 picks one.")
@click.option("--to", "target", required=True, metavar="HOST:PORT", help="Where their connections lead.")
@click.option("--seed", default=0, show_default=True, help="Decides jitter, loss and random outages.")
@click.option(
    "--events", type=click.Path(dir_okay=False, path_type=Path), help="Write a JSON line for each connection here."
)
@click.option(
    "--control", "control_port", type=click.IntRange(0, 65535), help="HTTP control port on loopback; 0 picks one."
)
@link_flags
def proxy(
    listen: str, target: str, seed: int, events: Path | None, control_port: int | None, profile: Profile | None
) -> None:
    """Relay any TCP program through a link, until interrupted."""
    try:
        addresses = parse_address(listen), parse_address(target, least=1)
    except LinkConfigError as error:
        raise click.UsageError(str(error)) from error
    link = profile or Profile("unlimited", LinkSpec(), LinkSpec(), "flags")
    try:
        lines = None if events is None else open_log(events)
    except OSError as error:
        raise click.UsageError(f"cannot write --events {events}: {error.strerror}") from error
    keep_on()
    try:
        asyncio.run(_proxy(*addresses, link, seed, lines, control_port))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {listen}: {error.strerror}") from error


async def _proxy(
    listen: tuple[str, int],
    target: tuple[str, int],
    profile: Profile,
    seed: int,
    events: TextIO | None,
    control_port: int | None,
) -> None:
    def log(event: dict[str, object]) -> None:
        if event["event"] == "refused":
            click.echo(f"target {event['to']} refused: {event['reason']}", err=True)
        if events is not None:
            print(json.dumps(event), file=events, flush=True)

    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(stopping(stop.set))
        relay = await stack.enter_async_context(Proxy(profile, seed, target, log=log))
        host, port = await relay.listen(*listen)
        click.echo(f"listening on {f'[{host}]' if ':' in host else host}:{port}")
        if control_port is not None:
            control = Control({profile.name: relay.link})
            stack.push_async_callback(control.close)
            click.echo(f"control on http://127.0.0.1:{await control.listen(control_port)}/links")
        await stop.wait()
        click.echo(json.dumps(describe(relay.link)))


@main.command()
@click.argument("name")
@click.option("--seconds", default=300.0, show_default=True, help="How many seconds to draw.")
@click.option("--seed", default=0, show_default=True, help="Decides random outages.")
@_PROFILES
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Also write a plot here.")
def show(name: str, seconds: float, seed: int, profiles_file: Path | None, png: Path | None) -> None:
    """Plot a named link's rate and outages over time."""
    with loading():
        from featherfed.bandwidth_sim.plot import as_text, rates_over_time, save_png

    try:
        profile = find_profile(name, read_profiles(profiles_file) if profiles_file else {})
    except LinkConfigError as error:
        raise click.UsageError(str(error)) from error
    if not 0 < seconds < math.inf:
        raise click.UsageError(f"--seconds must be positive, not {seconds}")
    series = rates_over_time(profile, seconds, seed)
    click.echo(_row(profile))
    click.echo(as_text(series, seconds))
    if png is not None:
        save_png(series, seconds, profile, png)


@main.command("test")
@click.option("--seconds", default=3.0, show_default=True, help="About how long each upload lasts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@link_flags
def self_test(seconds: float, as_json: bool, profile: Profile | None) -> None:
    """Print achieved against nominal goodput and round trip, on this machine."""
    if not 0 < seconds < math.inf:
        raise click.UsageError(f"--seconds must be positive, not {seconds}")
    names = ("2g", "3g", "4g", "fios")
    profiles = [profile] if profile is not None else [find_profile(name) for name in names]
    if not as_json:
        click.echo(f"{'link':<18} {'nominal':>16} {'achieved':>16} {'error':>8} {'rtt nominal':>12} {'achieved':>10}")
    for each in profiles:
        goodput = each.up.goodput_bytes_per_s
        if not math.isfinite(goodput):
            raise click.UsageError(f"link {each.name!r} has no rate to test: give --bandwidth")
        result = asyncio.run(measure(each, max(1448, int(goodput * seconds))))
        if as_json:
            click.echo(json.dumps(asdict(result)))
            continue
        nominal, achieved = rate_text(round(goodput)), rate_text(round(result.goodput_bytes_per_s))
        rtts = f"{result.nominal_rtt_s * 1000:>9.1f} ms {result.rtt_s * 1000:>7.1f} ms"
        click.echo(f"{each.name:<18} {nominal:>16} {achieved:>16} {result.goodput_error:>8.2%} {rtts}")
