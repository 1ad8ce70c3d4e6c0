"""`fl-bench`: experiments. Nothing heavy is imported before a command runs."""

import json
import os
import shlex
from pathlib import Path
from typing import ClassVar

import click

from featherfed.commandline.program import Program
from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on

# A cell is one of several on this machine, and its phones take turns: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Every Python that this one starts would look for modules in the current folder first: a file server.py there, or an
# empty json.py, would be imported in place of ours or the library's.
os.environ.setdefault("PYTHONSAFEPATH", "1")


class LazyGroup(Program):
    """Commands that live in modules of their own are imported when they are asked for.

    The list of commands has their lines from here, each what its command says of itself.
    """

    MODULES: ClassVar[dict[str, tuple[str, str]]] = {
        "agree": (
            "featherfed.fl_bench.agreement",
            "Run the scenario FILE with real processes and in virtual time; fails unless bytes and models are equal.",
        ),
        "compare": (
            "featherfed.fl_bench.comparing",
            "Say what changed from the runs in BEFORE to those in AFTER, and whether it exceeds the spread over seeds.",
        ),
        "report": (
            "featherfed.fl_bench.reporting",
            "Make a page, plots and data of RUNS: folders of fl-bench run, or of fl-server serve.",
        ),
        "results": (
            "featherfed.fl_bench.findings",
            "Judge the GRIDS, folders of fl-bench run, by what the papers say, and write docs/RESULTS.md.",
        ),
        "links": (
            "featherfed.fl_bench.links",
            "Measure links on real sockets: goodput, round trip, lateness and cost beside their nominal figures.",
        ),
        "codec": (
            "featherfed.fl_bench.codec",
            "Measure codecs: bits, error, bias, and the speed of one core beside a plain memory copy.",
        ),
        "dashboard": (
            "featherfed.fl_bench.dashboard_cost",
            "Measure what the live page, opened once, costs a round without training and links (Linux).",
        ),
        "training": (
            "featherfed.fl_bench.training",
            "Measure local training: CPU time of a step, ours beside autograd's and vmap's.",
        ),
        "chaos": (
            "featherfed.fl_bench.chaos.command",
            "Kill phones and servers by a schedule, and check that nothing is lost.",
        ),
        "hostile": (
            "featherfed.fl_bench.hostile",
            "Besiege a server with hostile connections; report its memory and the honest phones' rounds (Linux).",
        ),
        "ingest": (
            "featherfed.fl_bench.ingest",
            "Measure how fast one server takes updates, durable and not, beside a bare websockets echo server.",
        ),
        "swarm": (
            "featherfed.fl_bench.swarm",
            "Measure how long a swarm of phones takes to be ready to train, and its memory.",
        ),
        "performance": (
            "featherfed.fl_bench.performance",
            "Measure training, ingest and a swarm: four minutes on a machine that does nothing else.",
        ),
        "peers": (
            "featherfed.fl_bench.peers",
            "Run the same rounds in featherfed and in Flower, side by side, with training off and on.",
        ),
        "virtual": (
            "featherfed.fl_bench.virtual_cost",
            "Measure virtual time: its cost over the training alone, without training, and in memory; five minutes.",
        ),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, of this file and of the modules."""
        return sorted([*super().list_commands(ctx), *self.MODULES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module."""
        if cmd_name not in self.MODULES:
            return super().get_command(ctx, cmd_name)
        from importlib import import_module

        with loading():
            command: click.Command = getattr(import_module(self.MODULES[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, importing none of them."""
        mine = {name: command.get_short_help_str(1000) for name, command in self.commands.items()}
        lines = mine | {name: line for name, (_, line) in self.MODULES.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


@click.group(cls=LazyGroup)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Measure what a strategy costs in bytes and time."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: a new temporary one]")
@click.option("--bandwidth", default="256kbps", show_default=True, help="Of each phone's link, up and down.")
def demo(out: Path | None, bandwidth: str) -> None:
    """One server, ten phones, bundled data, a report: under a minute, no download."""
    keep_on()
    with loading():
        from featherfed.errors import FeatherfedError
        from featherfed.fl_bench.demo import run_demo

    try:
        page = run_demo(out, bandwidth, click.echo)
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"the report lies in {page}")


def _command(file: Path, virtual: bool, changes: tuple[str, ...]) -> str:
    """Return the command line that gives the same results again."""
    lines = [part for change in changes for part in ("--set", change)]
    return shlex.join(["fl-bench", "run", str(file), *(["--virtual"] if virtual else []), *lines])


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Folder of the runs."
)
@click.option("--virtual", is_flag=True, help="The same server and phones in one process, in virtual time.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Cells at a time, each a process.")
@click.option("--ray", metavar="auto|ADDRESS", help="Spread the cells over a Ray cluster.  (featherfed[ray])")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="A line of TOML in place of FILE's own.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted grid: finished cells are not run again.")
@click.option("--json", "as_json", is_flag=True, help="Print the cells' reports as JSON.")
def run(
    file: Path,
    out: Path,
    virtual: bool,
    jobs: int,
    ray: str | None,
    changes: tuple[str, ...],
    data_dir: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Run the scenario FILE with real processes or in virtual time; a key with a list makes it a grid."""
    keep_on()
    with loading():
        from rich.console import Console

        from featherfed.errors import ConfigError, FeatherfedError
        from featherfed.fl_bench.grid import run_grid
        from featherfed.fl_bench.progress import Progress
        from featherfed.fl_bench.running import cell_report, left_to_run
        from featherfed.fl_bench.scenario import COMMAND, SCENARIO, changed_text, read_scenario
        from featherfed.holding import held

    folder = out / file.stem
    try:
        cells = read_scenario(file, way="virtual" if virtual else None, changes=changes)
        if ray is not None and jobs > 1:
            raise ConfigError("--jobs is for this machine, and --ray for a cluster: leave out one of them")
        if folder.exists() and not resume:
            raise ConfigError(f"{folder} exists; go on with --resume, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, "run", "wait for it, or choose another --out", say=lambda line: click.echo(line, err=True)):
            (folder / SCENARIO).write_text(changed_text(file, changes), encoding="utf-8")
            (folder / COMMAND).write_text(_command(file, virtual, changes), encoding="utf-8")
            left_to_run(cells, folder)  # or what an interrupted grid left would show as under way
            with Progress(cells, folder, Console(stderr=True)):
                if ray is not None:
                    from featherfed.fl_bench.cluster import run_on_cluster

                    run_on_cluster(cells, folder, data_dir, address=ray)
                else:
                    run_grid(cells, folder, data_dir, jobs=jobs)
            reports = [cell_report(cell, folder) for cell in cells]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted; go on with --resume", err=True)
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(reports, indent=2))
        return
    from featherfed.fl_bench.results import read_runs
    from featherfed.fl_bench.terminal import table

    Console(width=None if Console().is_terminal else 200).print(table(read_runs([folder])))
    click.echo(f"all figures: fl-bench report {folder}", err=True)


if __name__ == "__main__":
    main()
