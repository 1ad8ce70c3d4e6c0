"""`fl-bench compare A B`: what changed between two sets of runs, and whether that is more than seeds differ by."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from featherfed.errors import ConfigError, FeatherfedError
from featherfed.fl_bench.differences import differences
from featherfed.fl_bench.results import FIGURES, Spread, Strategy, label, read_runs, targets_among
from featherfed.fl_bench.target_flag import target_flag
from featherfed.server.measures import Target


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one strategy before and after. `beyond_seeds`: whether no seed of one side lies among the other's.

    None where a side has one seed: nobody knows then how much seeds differ by.
    """

    strategy: str
    figure: str
    before: float | None
    after: float | None
    beyond_seeds: bool | None

    @property
    def ratio(self) -> float | None:
        """After by before."""
        return self.after / self.before if self.before and self.after is not None else None


def changes(before: Sequence[Strategy], after: Sequence[Strategy], asked: Sequence[Target] = ()) -> list[Change]:
    """Return the figures that differ, of strategies of one name; of one strategy each, whatever their names."""
    return [change for first, second in _pairs(before, after) for change in _of_pair(first, second, asked)]


def unlike(before: Sequence[Strategy], after: Sequence[Strategy]) -> list[str]:
    """Return a line for each pair of strategies that were not told the same: their figures compare settings, too."""
    lines = []
    for first, second in _pairs(before, after):
        one, other = first.runs[0], second.runs[0]
        found = differences(one.config, one.facts.get("phones"), other.config, other.facts.get("phones"))
        sizes = [run.report.get("parameters", 0) for run in (one, other)]
        if sizes[0] != sizes[1]:
            found["parameters"] = f"{sizes[0]:,}", f"{sizes[1]:,}"
        if found:
            said = ", ".join(f"{name} {old} → {new}" for name, (old, new) in found.items())
            lines.append(f"{_name(first, second)}: not the same settings: {said}")
    return lines


def _pairs(before: Sequence[Strategy], after: Sequence[Strategy]) -> list[tuple[Strategy, Strategy]]:
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    named = {strategy.name: strategy for strategy in after}
    pairs = [(strategy, named[strategy.name]) for strategy in before if strategy.name in named]
    if not pairs:
        raise ConfigError("no strategy is in both: compare runs of the same scenario, or two of one strategy each")
    return pairs


def _name(first: Strategy, second: Strategy) -> str:
    return first.name if first.name == second.name else f"{first.name} → {second.name}"


def _of_pair(first: Strategy, second: Strategy, asked: Sequence[Target]) -> Iterator[Change]:
    name = _name(first, second)
    figures = []
    if first.measures and first.measures[0] in second.measures[:1]:
        figures.append((f"best {first.measures[0].name}", first.best(), second.best()))
    for target in targets_among((first, second), asked):
        for figure, said in FIGURES.items():
            words = f"{said} to {label(target, (first, second))}"
            figures.append((words, first.to_target(target, figure), second.to_target(target, figure)))
    for words, old, new in figures:
        if (old.median, new.median) != (None, None) and old != new:
            yield Change(name, words, old.median, new.median, _apart(old, new))


def _apart(old: Spread, new: Spread) -> bool | None:
    if old.least is None or old.most is None or new.least is None or new.most is None:
        # One side has seeds that never got there.
        return True
    if min(old.seeds, new.seeds) < 2:
        return None
    return old.most < new.least or new.most < old.least


def _show(figure: str, value: float | None) -> str:
    if value is None:
        return "not reached"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


@click.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
@target_flag
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(before: Path, after: Path, targets: tuple[Target, ...], as_json: bool) -> None:
    """Say what changed from the runs in BEFORE to those in AFTER, and whether it exceeds the spread over seeds."""
    try:
        old, new = read_runs([before]), read_runs([after])
        found = changes(old, new, targets)
        for line in unlike(old, new):
            click.echo(line, err=True)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(change) | {"ratio": change.ratio} for change in found], indent=1))
        return
    if not found:
        click.echo("nothing changed: all figures are the same")
        return
    result = Table("strategy", "figure", title=f"{before} → {after}", title_justify="left")
    for name in ("before", "after", "ratio", "more than seeds differ"):
        result.add_column(name, justify="right")
    said = {True: "yes", False: "no", None: "one seed: unknown"}
    for change in found:
        times = "" if change.ratio is None else f"{change.ratio:.3f}"
        shown = [_show(change.figure, value) for value in (change.before, change.after)]
        result.add_row(change.strategy, change.figure, *shown, times, said[change.beyond_seeds])
    console = Console()
    console.print(result) if console.is_terminal else Console(width=200).print(result)
