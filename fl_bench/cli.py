"""`fl-bench`: experiments. Nothing heavy is imported before a command runs."""

import json
from pathlib import Path
from typing import ClassVar

import click


class LazyGroup(click.Group):
    """Commands that live in modules of their own are imported when they are asked for."""

    MODULES: ClassVar[dict[str, str]] = {
        "links": "fl_bench.links",
        "codec": "fl_bench.codec",
        "training": "fl_bench.training",
        "chaos": "fl_bench.chaos.command",
        "hostile": "fl_bench.hostile",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, of this file and of the modules."""
        return sorted([*super().list_commands(ctx), *self.MODULES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module."""
        if cmd_name not in self.MODULES:
            return super().get_command(ctx, cmd_name)
        from importlib import import_module

        command: click.Command = getattr(import_module(self.MODULES[cmd_name]), cmd_name)
        return command


@click.group(cls=LazyGroup)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Measure what a strategy costs in bytes and time."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: a new temporary one]")
@click.option("--bandwidth", default="256kbps", show_default=True, help="Of each phone's link, up and down.")
def demo(out: Path | None, bandwidth: str) -> None:
    """One server, ten phones, bundled data, a report: under a minute, no download."""
    from featherfed.errors import FeatherfedError
    from fl_bench.demo import run_demo

    try:
        page = run_demo(out, bandwidth, click.echo)
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"the report lies in {page}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Folder of the runs."
)
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted grid: finished cells are not run again.")
@click.option("--json", "as_json", is_flag=True, help="Print the cells' reports as JSON.")
def run(file: Path, out: Path, data_dir: str | None, resume: bool, as_json: bool) -> None:
    """Run the scenario FILE with real processes; a key with a list makes it a grid."""
    from featherfed.errors import ConfigError, FeatherfedError
    from fl_bench.running import run_cell
    from fl_bench.scenario import read_scenario
    from server.report import size

    folder = out / file.stem
    try:
        cells = read_scenario(file)
        if folder.exists() and not resume:
            raise ConfigError(f"{folder} exists; go on with --resume, or choose another --out")
        reports = []
        for number, cell in enumerate(cells, 1):
            click.echo(f"cell {number}/{len(cells)}: {cell.name}", err=True)
            reports.append(run_cell(cell, folder, data_dir, lambda line: click.echo(line, err=True)))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(reports, indent=2))
        return
    for cell, report in zip(cells, reports, strict=True):
        best = max((row["accuracy"] for row in report["rounds"] if row["accuracy"] is not None), default=0.0)
        totals = {way: size(report["totals"][way]["socket"]) for way in ("uplink", "downlink")}
        click.echo(f"{cell.name}: best accuracy {best:.2%}, {totals['uplink']} up, {totals['downlink']} down")
