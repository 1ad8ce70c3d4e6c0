"""`fl-bench run`: a scenario's cells, with real processes or in virtual time."""

import errno
import json
import shlex
from pathlib import Path

import click

from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on

NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
"""What is wrong with a folder that no other try will change."""


def _command(file: Path, virtual: bool, changes: tuple[str, ...]) -> str:
    """Return the command line that gives the same results again."""
    lines = [part for change in changes for part in ("--set", change)]
    return shlex.join(["fl-bench", "run", str(file), *(["--virtual"] if virtual else []), *lines])


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Folder of the runs."
)
@click.option("--virtual", is_flag=True, help="The same server and phones in one process, in virtual time.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Cells at a time, each a process.")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N",
    help="Phones that train at a time, of each cell in virtual time.  [default: the cores, shared by --jobs]",
)  # fmt: skip
@click.option(
    "--ray", metavar="auto|ADDRESS",
    help="Spread the cells over a Ray cluster, or the phones of a single one in virtual time.  (featherfed[ray])",
)  # fmt: skip
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="A line of TOML in place of FILE's own.")
@click.option(
    "--data-dir", type=click.Path(), help="Folder with data sets, like MNIST.  [default: FL_DATA_DIR, else a cache]"
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted grid: finished cells are not run again.")
@click.option("--json", "as_json", is_flag=True, help="Print the cells' reports as JSON.")
def run(
    file: Path,
    out: Path,
    virtual: bool,
    jobs: int,
    workers: int | None,
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
        from featherfed.fl_bench.cells import cell_report, left_to_run, refuse_changed
        from featherfed.fl_bench.grid import run_grid
        from featherfed.fl_bench.progress import Progress
        from featherfed.fl_bench.scenario import COMMAND, SCENARIO, changed_text, read_scenario
        from featherfed.holding import held

    folder = out / file.stem
    try:
        cells = read_scenario(file, way="virtual" if virtual else None, changes=changes)
        if workers is not None and all(cell.way != "virtual" for cell in cells):
            raise ConfigError("--workers are for a simulated run: add --virtual, or leave them out")
        if ray is not None and jobs > 1:
            raise ConfigError("--jobs is for this machine, and --ray for a cluster: leave out one of them")
        if ray is not None and workers is not None and len(cells) > 1:
            raise ConfigError("with --ray each cell of a grid is a task of one core: leave out --workers")
        if folder.exists() and not resume:
            raise ConfigError(f"{folder} exists; go on with --resume, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, "run", "wait for it, or choose another --out", say=lambda line: click.echo(line, err=True)):
            refuse_changed(cells, folder)
            (folder / SCENARIO).write_text(changed_text(file, changes), encoding="utf-8")
            (folder / COMMAND).write_text(_command(file, virtual, changes), encoding="utf-8")
            left_to_run(cells, folder)  # or what an interrupted grid left would show as under way
            with Progress(cells, folder, Console(stderr=True)):
                if ray is not None and len(cells) == 1 and cells[0].way == "virtual":
                    from featherfed.fl_bench.cluster import train_on_cluster

                    train_on_cluster(cells[0], folder, data_dir, address=ray, workers=workers)
                elif ray is not None:
                    from featherfed.fl_bench.cluster import run_on_cluster

                    run_on_cluster(cells, folder, data_dir, address=ray)
                else:
                    run_grid(cells, folder, data_dir, jobs=jobs, workers=workers)
            reports = [cell_report(cell, folder) for cell in cells]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        # A write that fails does not know its file, as an open does.
        where = error.filename or folder
        way_out = "choose another --out" if error.errno in NOT_OURS else "go on with --resume"
        raise click.ClickException(f"cannot write {where}: {error.strerror}; {way_out}") from error
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
