"""The table of bytes and time to a target, for a terminal, and figures as people read them."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from featherfed.fl_bench.results import Strategy, label, ratio, reached_among, targets_among
from featherfed.server.measures import Target
from featherfed.server.storage.report import size


def table(strategies: Sequence[Strategy], asked: Sequence[Target] = ()) -> Table:
    """Return one row a strategy: its best, then rounds, bytes and ratio to float32 for each target."""
    reached = reached_among(strategies, targets_among(strategies, asked))
    result = Table(title="uplink of all phones to a target: rounds, payload, socket bytes, × less than float32")
    result.add_column("strategy", overflow="fold")
    result.add_column("seeds", justify="right")
    result.add_column("best", justify="right")
    for target in reached:
        result.add_column(escape(label(target, strategies)), justify="right")
    for strategy in strategies:
        cells = [_cell(strategy, strategies, target) for target in reached]
        result.add_row(escape(strategy.name), str(len(strategy.runs)), strategy.best_text(), *cells)
    result.caption = "medians over seeds; – where a seed did not reach it"
    return result


def _cell(strategy: Strategy, strategies: Sequence[Strategy], target: Target) -> str:
    rounds = strategy.to_target(target, "round").median
    payload = strategy.to_target(target, "uplink_payload").median
    socket = strategy.to_target(target, "uplink_socket").median
    if rounds is None or payload is None or socket is None:
        return "–"
    times = ratio(strategy, strategies, target)
    less = f"  {times:.3g}×" if times and abs(times - 1) > 1e-9 else ""
    return f"{rounds:g} r  {size(round(payload))} / {size(round(socket))}{less}"


def duration(seconds: float | None) -> str:
    """Return a duration as people read it.

    >>> duration(75.2), duration(7200), duration(None)
    ('75 s', '2.0 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
