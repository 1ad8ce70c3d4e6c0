"""`python -m lab chaos`: play a schedule of faults, check every promise, keep the figures in the docs."""

import asyncio
import re
import tempfile
from pathlib import Path

import click


@click.group()
def chaos() -> None:
    """Kill phones and servers by a schedule, and check that nothing is lost."""


@chaos.command()
@click.argument("schedules", metavar="SCHEDULE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of all runs.  [default: a new temporary one]")
@click.option("--docs", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Page for the figures.")
def play(schedules: tuple[Path, ...], out: Path | None, docs: Path | None) -> None:
    """Play each SCHEDULE twice, calm and with its faults; exit 1 if a promise is broken."""
    from featherfed.errors import ConfigError, FeatherfedError
    from lab.chaos.arena import Arena
    from lab.chaos.schedule import read_schedule
    from lab.chaos.verdict import broken_promises, figures

    folder = out or Path(tempfile.mkdtemp(prefix="featherfed-chaos-"))
    played, found = [], []
    try:
        read = [(path.stem.removeprefix("long-"), read_schedule(path)) for path in schedules]
        for name, schedule in read:
            calm = asyncio.run(Arena(schedule.calm(), folder / name, "calm").play())
            click.echo(f"{name}: the calm run took {calm.seconds:.0f} s; now {len(schedule.faults)} faults")
            outcome = asyncio.run(Arena(schedule, folder / name, "chaos").play())
            found += [f"{name}: {sentence}" for sentence in broken_promises(schedule, calm, outcome)]
            played.append((name, schedule, outcome))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    table = figures(played)
    click.echo(table)
    if found:
        raise click.ClickException("; ".join(found) + f"; see {folder}")
    if docs is not None:
        docs.write_text(between_markers(docs.read_text(), "chaos", table))


@chaos.command()
@click.option("--phones", default=20, show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--trainers", default=2, show_default=True, help="Phones that run SGD; the others send seeded noise.")
@click.option("--seed", default=0, show_default=True)
@click.option("--server-kills", default=20, show_default=True)
@click.option("--phone-kills", default=100, show_default=True)
@click.option("--cuts", default=60, show_default=True, help="Connections that are reset, ended or silenced.")
@click.option("--problem", default="digits/lite", show_default=True)
@click.option("--uplink", default="feedback | topk(1/4)", show_default=True)
@click.option("--downlink", default="rotate | eden(4)", show_default=True)
@click.option("--bandwidth", default="", help="Of each phone's link.  [default: as fast as the machine]")
@click.option("--mode", default="sync", show_default=True)
@click.option("--tls", is_flag=True, help="Over TLS.")
@click.option("--gateways", default=0, show_default=True, help="Gateways between the phones and the root.")
@click.option("--secure", is_flag=True, help="Sum under masks; name an uplink like secure-4bit.")
@click.option("--heartbeat", default="3s", show_default=True, help="Silence is found in two.")
def plan(**run: object) -> None:
    """Print a schedule drawn from --seed."""
    from lab.chaos.schedule import plan as draw

    click.echo(draw(**run).to_toml(), nl=False)  # type: ignore[arg-type]


@chaos.command()
@click.option("--docs", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Page for the figures.")
def durability(docs: Path | None) -> None:
    """Measure what it costs that every Ack waits for the disk; wants a machine that does nothing else."""
    from lab.chaos.durability import durability as measured

    table = measured()
    click.echo(table)
    if docs is not None:
        docs.write_text(between_markers(docs.read_text(), "durability", table))


def between_markers(page: str, name: str, text: str) -> str:
    """Return the page with `text` between its markers `<!-- name -->` and `<!-- /name -->`."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise click.ClickException(f"the page has no markers <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)
