"""`fl-bench report`: what grids and runs have shown, as a page, plots, tables and data."""

import csv
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import jinja2
from matplotlib.figure import Figure
from rich.console import Console

from featherfed.errors import ConfigError, FeatherfedError
from featherfed.fl_bench.plots import as_svg, bytes_bars, measure_by_bytes, measure_by_time, save_png
from featherfed.fl_bench.results import (
    Spread,
    Strategy,
    as_json,
    by_bytes,
    label,
    ratio,
    reached_among,
    read_runs,
    round_rows,
    targets_among,
)
from featherfed.fl_bench.scenario import COMMAND, SCENARIO
from featherfed.fl_bench.target_flag import target_flag
from featherfed.fl_bench.terminal import bytes_text, duration, epsilon_text, table
from featherfed.server.measures import Measure, Target

ROUNDS, PAGE = "rounds", "report.html"


def plots_of(strategies: Sequence[Strategy]) -> dict[str, Callable[[Sequence[Strategy]], Figure]]:
    """Return what is drawn of a comparison, by the name of its file."""
    if not strategies[0].measures:
        return {"bytes": bytes_bars}
    return {"metric-bytes": measure_by_bytes, "metric-time": measure_by_time, "bytes": bytes_bars}


Grid = tuple[Path, str, str]
"""A grid's folder, the command that ran it, and its scenario."""


def grids_of(runs: Sequence[Path]) -> list[Grid]:
    """Return how the grids among some folders were run."""
    return [
        (run, (run / COMMAND).read_text(), (run / SCENARIO).read_text())
        for run in runs
        if (run / COMMAND).exists() and (run / SCENARIO).exists()
    ]


def page(strategies: Sequence[Strategy], command: str, grids: Sequence[Grid] = (), asked: Sequence[Target] = ()) -> str:
    """Return one HTML page that needs nothing else: plots, the table, and how to run it again."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("featherfed.fl_bench"), autoescape=True)
    environment.filters.update(size=bytes_text, duration=duration, spread=_spread, value=_value, epsilon=epsilon_text)
    return environment.get_template("report.html").render(
        strategies=strategies,
        private=any(strategy.epsilon is not None for strategy in strategies),
        measure=strategies[0].measures[0] if strategies[0].measures else None,
        targets=reached_among(strategies, targets_among(strategies, asked)),
        label=lambda target: label(target, strategies),
        ratio=lambda strategy, target: ratio(strategy, strategies, target),
        by_bytes=lambda target: by_bytes(strategies, target),
        plots={name: as_svg(make(strategies)) for name, make in plots_of(strategies).items()},
        command=command,
        grids=grids,
        config=[(each.name, each.config.command(), each.runs[0].facts.get("phones", {})) for each in strategies],
    )


def _value(value: float | None, strategy: Strategy) -> str:
    return strategy.measures[0].text(value) if strategy.measures else "–"


def _spread(spread: Spread, kind: str | Measure) -> str:
    """Return the mean, the least and the most over seeds, nothing where they are one."""
    if spread.least is None or spread.most is None or spread.least == spread.most:
        return ""
    show = kind.text if isinstance(kind, Measure) else duration if kind == "seconds" else bytes_text
    return f"{show(spread.mean)}, {show(spread.least)} … {show(spread.most)}"


def write_report(
    strategies: Sequence[Strategy],
    out: Path,
    command: str,
    grids: Sequence[Grid] = (),
    asked: Sequence[Target] = (),
) -> list[Path]:
    """Write the page, the plots as PNG, and the rounds as CSV (and Parquet with pyarrow); return the files."""
    out.mkdir(parents=True, exist_ok=True)
    written = [out / PAGE]
    (out / PAGE).write_text(page(strategies, command, grids, asked), encoding="utf-8")
    for name, make in plots_of(strategies).items():
        save_png(make(strategies), out / f"{name}.png", dpi=144)
        written.append(out / f"{name}.png")
    rows = round_rows(strategies)
    with open(out / f"{ROUNDS}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    written.append(out / f"{ROUNDS}.csv")
    return [*written, *_write_parquet(rows, out)]


def _write_parquet(rows: list[dict[str, Any]], out: Path) -> list[Path]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        # Whoever wants it installs featherfed[parquet]; the CSV has the same columns.
        return []
    parquet.write_table(pyarrow.Table.from_pylist(rows), out / f"{ROUNDS}.parquet")
    return [out / f"{ROUNDS}.parquet"]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the page.  [default: report in the first RUNS]")
@target_flag
@click.option("--json", "json_only", is_flag=True, help="Print all figures as JSON and write nothing.")
def report(runs: tuple[Path, ...], out: Path | None, targets: tuple[Target, ...], json_only: bool) -> None:
    """Make a page, plots and data of RUNS: folders of fl-bench run, or of fl-server serve."""
    try:
        strategies = read_runs(runs)
        if json_only:
            click.echo(json.dumps(as_json(strategies, targets), indent=1))
            return
        command = shlex.join(
            ["fl-bench", "report", *map(str, runs), *(part for each in targets for part in ("--target", str(each)))]
        )
        written = write_report(strategies, out or runs[0] / "report", command, grids_of(runs), targets)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    shown = table(strategies, targets)
    console.print(shown) if console.is_terminal else Console(width=200).print(shown)
    click.echo(f"the page is {written[0]}; beside it {', '.join(path.name for path in written[1:])}")
